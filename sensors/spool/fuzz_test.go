package spool

import (
	"slices"
	"testing"

	"vigie/sensors"
)

// FuzzOpen opens a spool of two segments and a position with any content. Whatever comes out
// must be reads that lie in the files with number and CRC, each once and by rising number, and
// the count of the lost must make up for the rest; what is appended then comes last.
func FuzzOpen(f *testing.F) {
	d := newMemDisk()
	s, err := Open(d.config(Config{SegmentBytes: 300}))
	if err != nil {
		f.Fatal(err)
	}
	appendAll(f, s, readsFrom(0, 3)...)
	appendAll(f, s, readsFrom(3, 3)...)
	s.Close()
	segs := d.segments()
	one, two := d.files[segs[0]].data, d.files[segs[1]].data
	f.Add(one, two, formatPosition(2))
	f.Add(one[:len(one)-5], two[:len(two)-1], []byte{})
	f.Add(one[headerBytes:], slices.Concat(recordMagic[:], two), formatPosition(5))
	f.Add(slices.Concat(one, one), []byte{}, formatPosition(maxNumber-1))
	flipped := slices.Clone(one)
	flipped[40] ^= 4
	f.Add(flipped, slices.Concat(two, make([]byte, 100), two), []byte("garbage"))
	f.Fuzz(func(t *testing.T, one, two, position []byte) {
		d := newMemDisk()
		d.put(segmentName(1), one)
		d.put(segmentName(4), two)
		d.put(positionName, position)
		// What a slow and obvious reader finds: any place may begin a record.
		found := map[string]bool{}
		for _, b := range [][]byte{one, two} {
			w := walker{limit: maxNumber}
			for i := range b {
				if _, payload, ok := w.parse(b[i:]); ok {
					found[string(payload)] = true
				}
			}
		}
		s, err := Open(d.config(Config{}))
		if err != nil {
			if parseHeader(one) > version || parseHeader(two) > version {
				return
			}
			t.Fatalf("Open: %v", err)
		}
		defer s.Close()
		depth := s.Stats().Depth
		last := read(99)
		appendAll(t, s, last)
		got := drainAll(t, s, 2)
		for i := range got[:len(got)-1] {
			b, err := sensors.AppendProto(nil, &got[i])
			var again sensors.Read
			if err != nil || sensors.Decode(b, &again) != nil {
				t.Fatalf("read %d cannot be written: %v", i, err)
			}
			if !found[string(b)] && !anyEqual(found, &got[i]) {
				t.Fatalf("read %d is in no record", i)
			}
		}
		wantIDs(t, got[len(got)-1:], []sensors.Read{last})
		s.Close()
		if st := s.Stats(); st.Drained+st.Damaged+st.TooOld != depth+1 || st.Depth != 0 || st.Segments != 0 {
			t.Fatalf("of %d reads: stats %+v", depth+1, st)
		}
	})
}

// anyEqual reports whether a record holds r in another encoding than ours.
func anyEqual(records map[string]bool, r *sensors.Read) bool {
	for payload := range records {
		var other sensors.Read
		if sensors.Decode([]byte(payload), &other) == nil && other.ID == r.ID && other.Sensor == r.Sensor && other.Plate == r.Plate {
			return true
		}
	}
	return false
}
