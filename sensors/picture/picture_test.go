package picture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"
)

// scene is a picture that compresses like one: a dark left half and a light right half.
func scene(img draw.Image) draw.Image {
	b := img.Bounds()
	draw.Draw(img, b, image.NewUniform(color.Gray{40}), image.Point{}, draw.Src)
	right := b
	right.Min.X += b.Dx() / 2
	draw.Draw(img, right, image.NewUniform(color.Gray{200}), image.Point{}, draw.Src)
	return img
}

func asJPEG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asPNG(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withEXIF puts a segment behind the first mark of a JPEG, and a script behind the last byte.
func withEXIF(raw []byte) []byte {
	segment := []byte("\xff\xe1\x00\x16Exif\x00\x00SECRET-SERIAL")
	binary.BigEndian.PutUint16(segment[2:], uint16(len(segment)-2))
	out := append([]byte{0xff, 0xd8}, segment...)
	out = append(out, raw[2:]...)
	return append(out, "<script>SECRET-TAIL</script>"...)
}

func TestClean(t *testing.T) {
	rect := image.Rect(0, 0, 64, 48)
	colours := color.Palette{color.Gray{40}, color.Gray{200}}
	for _, tc := range []struct {
		name string
		raw  []byte
		w, h int
	}{
		{"JPEG", asJPEG(t, scene(image.NewRGBA(rect))), 64, 48},
		{"grey JPEG", asJPEG(t, scene(image.NewGray(rect))), 64, 48},
		{"with EXIF and a tail", withEXIF(asJPEG(t, scene(image.NewRGBA(rect)))), 64, 48},
		{"PNG", asPNG(t, scene(image.NewRGBA(rect))), 64, 48},
		{"PNG with 16 bits", asPNG(t, scene(image.NewNRGBA64(rect))), 64, 48},
		{"PNG with a palette", asPNG(t, scene(image.NewPaletted(rect, colours))), 64, 48},
		{"PNG with a tail", append(asPNG(t, scene(image.NewRGBA(rect))), "SECRET-TAIL"...), 64, 48},
		{"large JPEG", asJPEG(t, scene(image.NewRGBA(image.Rect(0, 0, 2001, 1501)))), 1600, 1200},
		{"large grey JPEG", asJPEG(t, scene(image.NewGray(image.Rect(0, 0, 3200, 100)))), 1600, 50},
		{"large PNG", asPNG(t, scene(image.NewRGBA(image.Rect(0, 0, 1700, 1700)))), 1600, 1600},
		{"high", asJPEG(t, scene(image.NewRGBA(image.Rect(0, 0, 20, 3200)))), 10, 1600},
		{"a line", asJPEG(t, scene(image.NewRGBA(image.Rect(0, 0, 4000, 1)))), 1600, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := Clean(tc.raw, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(out, []byte("SECRET")) || bytes.Contains(out, []byte("Exif")) {
				t.Error("bytes of the sensor are in the picture")
			}
			img, err := jpeg.Decode(bytes.NewReader(out))
			if err != nil {
				t.Fatal(err)
			}
			if b := img.Bounds(); b.Dx() != tc.w || b.Dy() != tc.h {
				t.Errorf("%d x %d, want %d x %d", b.Dx(), b.Dy(), tc.w, tc.h)
			}
			for at, want := range map[int]int{tc.w / 8: 40, tc.w - 1 - tc.w/8: 200} {
				r, g, b, _ := img.At(at, tc.h/2).RGBA()
				for _, v := range []uint32{r, g, b} {
					if got := int(v >> 8); got < want-12 || got > want+12 {
						t.Errorf("at %d: %d, want about %d", at, got, want)
					}
				}
			}
		})
	}
}

// TestTransparent checks that nothing hides behind what cannot be seen.
func TestTransparent(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 16, 16)) // black, and not to be seen
	out, err := Clean(asPNG(t, img), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := jpeg.Decode(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if r, _, _, _ := got.At(8, 8).RGBA(); r>>8 < 250 {
		t.Errorf("red is %d, want white", r>>8)
	}
}

// noise does not compress.
func noise(w, h int) *image.Gray {
	img := image.NewGray(image.Rect(0, 0, w, h))
	rng := rand.NewPCG(1, 2)
	for i := 0; i+8 <= len(img.Pix); i += 8 {
		binary.LittleEndian.PutUint64(img.Pix[i:], rng.Uint64())
	}
	return img
}

func TestOutLimit(t *testing.T) {
	raw := asJPEG(t, noise(1600, 1200))
	out, err := Clean(raw, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) > 900<<10 || len(raw) < 900<<10 {
		t.Errorf("%d bytes became %d", len(raw), len(out))
	}
	out, err = Clean(raw, Limits{OutBytes: 2000})
	if err != nil || len(out) > 2000 {
		t.Errorf("at 2000: %d bytes, %v", len(out), err)
	}
	if _, err = Clean(raw, Limits{OutBytes: 10}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("at 10: %v", err)
	}
}

// claim is a PNG header that says how large the picture behind it is, with no picture behind it.
func claim(w, h uint32, depth, kind byte) []byte {
	chunk := []byte("IHDR")
	chunk = binary.BigEndian.AppendUint32(chunk, w)
	chunk = binary.BigEndian.AppendUint32(chunk, h)
	chunk = append(chunk, depth, kind, 0, 0, 0)
	out := []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d")
	out = append(out, chunk...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(chunk))
}

// frame is a JPEG of one grey component that says how large it is, of the given kind of frame.
func frame(kind byte, w, h uint16) []byte {
	out := []byte{0xff, 0xd8, 0xff, kind, 0, 11, 8}
	out = binary.BigEndian.AppendUint16(out, h)
	out = binary.BigEndian.AppendUint16(out, w)
	return append(out, 1, 1, 0x11, 0, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0)
}

func TestRefused(t *testing.T) {
	small := asJPEG(t, scene(image.NewRGBA(image.Rect(0, 0, 64, 48))))
	scans := bytes.Repeat([]byte{0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0}, 40)
	for _, tc := range []struct {
		name   string
		raw    []byte
		limits Limits
		want   error
	}{
		{"empty", nil, Limits{}, ErrFormat},
		{"a text", []byte("BASE64PLACEHOLDER"), Limits{}, ErrFormat},
		{"a GIF", []byte("GIF89a\x01\x00\x01\x00"), Limits{}, ErrFormat},
		{"cut off", small[:len(small)/2], Limits{}, ErrFormat},
		{"a header alone", small[:20], Limits{}, ErrFormat},
		{"too many bytes", small, Limits{InBytes: len(small) - 1}, ErrTooLarge},
		{"too many pixels", small, Limits{Pixels: 64*48 - 1}, ErrTooLarge},
		{"too much memory", small, Limits{Memory: 3*64*48 - 1}, ErrTooLarge},
		{"a claim of 65,535 squared", frame(0xc0, 65535, 65535), Limits{}, ErrTooLarge},
		{"a claim of a PNG", claim(30_000, 30_000, 8, 6), Limits{}, ErrTooLarge},
		{"40 million pixels of 16 bytes", claim(8000, 5000, 16, 6), Limits{}, ErrTooLarge},
		{"progressive, whose coefficients are kept", frame(0xc2, 3000, 2000), Limits{}, ErrTooLarge},
		{"passes without end", append(frame(0xc2, 100, 100), scans...), Limits{}, ErrTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Clean(tc.raw, tc.limits)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("it took %d bytes to refuse", n)
			}
		})
	}
}

// TestCleanerIsBounded checks that of many pictures at once few are worked on, that those beyond the
// backlog are told at once, and that all are counted.
func TestCleanerIsBounded(t *testing.T) {
	c := NewCleaner(Config{AtOnce: 1, Backlog: 2, Wait: 20 * time.Millisecond})
	raw := asJPEG(t, scene(image.NewRGBA(image.Rect(0, 0, 64, 48))))
	c.working <- struct{}{} // somebody works on one
	start := time.Now()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := c.Clean(context.Background(), raw); !errors.Is(err, ErrBusy) {
				t.Errorf("got %v, want ErrBusy", err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("reads waited %v for their pictures", took)
	}
	<-c.working
	if _, err := c.Clean(context.Background(), raw); err != nil {
		t.Errorf("when there is room again: %v", err)
	}
	if _, err := c.Clean(context.Background(), nil); !errors.Is(err, ErrFormat) {
		t.Errorf("nothing: %v", err)
	}
	if got, want := c.Stats(), (Stats{Cleaned: 1, Refused: 1, Busy: 10}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func FuzzClean(f *testing.F) {
	for _, w := range []int{1, 7, 40} {
		img := scene(image.NewRGBA(image.Rect(0, 0, w, 9)))
		f.Add(asJPEG(f, img))
		f.Add(asPNG(f, img))
		f.Add(withEXIF(asJPEG(f, scene(image.NewGray(img.Bounds())))))
	}
	f.Add(claim(1<<30, 1<<30, 8, 6))
	f.Add(frame(0xc2, 100, 100))
	limits := Limits{InBytes: 1 << 16, Pixels: 1 << 16, Memory: 1 << 20, Side: 32, OutBytes: 4 << 10}
	f.Fuzz(func(t *testing.T, raw []byte) {
		out, err := Clean(raw, limits)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		img, err := jpeg.Decode(bytes.NewReader(out))
		if err != nil {
			t.Fatalf("what was made cannot be read: %v", err)
		}
		if b := img.Bounds(); len(out) > limits.OutBytes || b.Dx() > limits.Side || b.Dy() > limits.Side {
			t.Fatalf("%d bytes, %v", len(out), b)
		}
		if _, err := Clean(out, limits); err != nil {
			t.Fatalf("what was made is refused: %v", err)
		}
	})
}

// BenchmarkClean is what a picture costs: a plate crop, a scene of 2 million pixels that is made
// smaller, and the largest that is taken.
func BenchmarkClean(b *testing.B) {
	for name, size := range map[string]image.Point{"crop": {400, 120}, "scene": {1920, 1080}, "largest": {5400, 4100}} {
		raw := asJPEG(b, scene(image.NewRGBA(image.Rectangle{Max: size})))
		b.Run("picture="+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Clean(raw, Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
