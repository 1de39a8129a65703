package picture

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/jpeg"
	"testing"

	"vigie/sensors"
)

// fakeImages keeps pictures in memory, those of the read "away" excepted.
type fakeImages struct{ kept [][]byte }

func (f *fakeImages) Put(_ context.Context, read string, jpeg []byte) (sensors.Image, error) {
	if read == "away" {
		return sensors.Image{}, errors.New("away")
	}
	f.kept = append(f.kept, jpeg)
	return sensors.Image{Partition: 3, Offset: int64(len(f.kept) - 1)}, nil
}

func TestStore(t *testing.T) {
	images := new(fakeImages)
	s, err := NewStore(NewCleaner(Config{}), images)
	if err != nil {
		t.Fatal(err)
	}
	plate := withEXIF(asJPEG(t, scene(image.NewRGBA(image.Rect(0, 0, 40, 10)))))
	whole := asPNG(t, scene(image.NewRGBA(image.Rect(0, 0, 80, 60))))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name             string
		ctx              context.Context
		read             string
		plate, scene     []byte
		plateAt, sceneAt bool
	}{
		{"both", t.Context(), "r", plate, whole, true, true},
		{"a plate", t.Context(), "r", plate, nil, true, false},
		{"a scene, and a plate that is none", t.Context(), "r", []byte("BASE64PLACEHOLDER"), whole, false, true},
		{"neither", t.Context(), "r", nil, nil, false, false},
		{"nowhere to keep them", t.Context(), "away", plate, whole, false, false},
		{"no time", ended, "r", plate, whole, false, false},
	} {
		plateAt, sceneAt := s.Store(tc.ctx, tc.read, tc.plate, tc.scene)
		if (plateAt != nil) != tc.plateAt || (sceneAt != nil) != tc.sceneAt {
			t.Errorf("%s: got %v and %v", tc.name, plateAt, sceneAt)
		}
		if tc.name == "both" && (*plateAt != sensors.Image{Partition: 3, Offset: 0} || *sceneAt != sensors.Image{Partition: 3, Offset: 1}) {
			t.Errorf("%s: got %v and %v", tc.name, *plateAt, *sceneAt)
		}
	}
	for _, kept := range images.kept {
		if _, err := jpeg.Decode(bytes.NewReader(kept)); err != nil || bytes.Contains(kept, []byte("SECRET")) {
			t.Errorf("kept what is not clean: %v", err)
		}
	}
	if got, want := s.Stats(), (StoreStats{Stats{Cleaned: 6, Refused: 1}, 4, 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := NewStore(nil, images); err == nil {
		t.Error("a Store without a Cleaner")
	}
}
