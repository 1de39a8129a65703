package matcher

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"vigie/watchlist"
	"vigie/watchlist/control"
	"vigie/watchlist/plate"
)

// TestFilter bounds the false-positive rate at the size the filter was built
// for and shows that it never forgets a key.
func TestFilter(t *testing.T) {
	for _, n := range []int{1, 10, 1000, 100_000} {
		rng := rand.New(rand.NewPCG(uint64(n), 3))
		f := newFilter(n)
		words := f.BitSet().Words()
		keys := make(map[uint64]bool, n)
		for range n {
			k := rng.Uint64() >> 1
			keys[k] = true
			filterAdd(words, mix(k))
		}
		for k := range keys {
			if !filterHas(words, mix(k)) {
				t.Fatalf("n=%d: a key that was added is not there", n)
			}
		}
		const probes = 200_000
		wrong := 0
		for range probes {
			if k := rng.Uint64() >> 1; !keys[k] && filterHas(words, mix(k)) {
				wrong++
			}
		}
		rate := float64(wrong) / probes
		t.Logf("n=%d: false positives %.3f %%, %d bits per key", n, 100*rate, len(words)*64/n)
		if rate > 0.01 {
			t.Errorf("n=%d: false positives %.2f %%, want at most 1 %%", n, 100*rate)
		}
	}
}

// oneFilter is a record of a filter for n keys.
func oneFilter(tb testing.TB, n int) []byte {
	tb.Helper()
	rng := rand.New(rand.NewPCG(uint64(n), 4))
	f := storedFilter{shard: 5, keys: uint64(n), digest: rng.Uint64(), filter: newFilter(n)}
	for range n {
		filterAdd(f.filter.BitSet().Words(), mix(rng.Uint64()))
	}
	var buf bytes.Buffer
	if err := f.writeTo(&buf); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

// TestFilterLayout fails when keys fall on other positions, or are written in
// another form, than in the filters that are stored already: filterMagic must
// change with either.
func TestFilterLayout(t *testing.T) {
	if got, want := crc32.ChecksumIEEE(oneFilter(t, 100)), uint32(0xddd5ca03); got != want {
		t.Errorf("checksum of the record %#08x, want %#08x", got, want)
	}
}

func TestReadFilterRefuses(t *testing.T) {
	good := oneFilter(t, 60)
	if _, err := readFilter(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, flip := range []byte{1, 0x80, 0xff} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			if _, err := readFilter(bytes.NewReader(bad)); err == nil || err == io.EOF {
				t.Fatalf("byte %d changed by %#x: %v, want a refusal", i, flip, err)
			}
		}
		if _, err := readFilter(bytes.NewReader(good[:i])); err == nil || (err == io.EOF) != (i == 0) {
			t.Fatalf("cut after %d bytes: %v", i, err)
		}
	}
	// Heads that lie, with a checksum that fits.
	for _, tc := range []struct {
		name string
		at   int
		to   uint64
		want string
	}{
		{"other probes", 32, 7, "7 probes, want 6"},
		{"bits no multiple of a line", 24, 1000, "1000 and 1024 bits for 60 keys"},
		{"more bits than the keys need", 24, 1 << 40, "1099511627776 and 1024 bits for 60 keys"},
		{"lengths that differ", 40, 512, "1024 and 512 bits for 60 keys"},
		{"no keys", 8, 0, "0 keys"},
		{"too many keys", 8, 1 << 63, "9223372036854775808 keys"},
	} {
		bad := bytes.Clone(good)
		binary.BigEndian.PutUint64(bad[tc.at:], tc.to)
		if _, err := readFilter(bytes.NewReader(sign(bad))); err == nil || err.Error() != tc.want {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	bad := bytes.Clone(good)
	binary.BigEndian.PutUint32(bad[4:], 1<<shardBits)
	if _, err := readFilter(bytes.NewReader(sign(bad))); err == nil {
		t.Error("a shard that does not exist was taken")
	}
}

// sign makes the checksum of a record right.
func sign(record []byte) []byte {
	body := record[:len(record)-filterTrailer]
	return binary.BigEndian.AppendUint32(body, crc32.Checksum(body, castagnoli))
}

// TestReadFilterAllocates: a head that promises 6 GB and brings nothing must
// cost nothing.
func TestReadFilterAllocates(t *testing.T) {
	head := bytes.Clone(oneFilter(t, 1)[:filterHead])
	binary.BigEndian.PutUint64(head[8:], maxFilterKeys)
	bits := uint64(filterLines(maxFilterKeys) * lineBits)
	binary.BigEndian.PutUint64(head[24:], bits)
	binary.BigEndian.PutUint64(head[40:], bits)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := readFilter(bytes.NewReader(head))
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; err == nil || got > 1<<20 {
		t.Errorf("%v after %d bytes, want an error after at most 1 MB", err, got)
	}
}

// FuzzReadFilter: what is not refused is written again as it was. Every input is
// also read with its checksum made right, or nothing would get past it.
func FuzzReadFilter(f *testing.F) {
	for _, n := range []int{1, 42, 43, 1000} {
		f.Add(oneFilter(f, n))
	}
	f.Add([]byte{})
	f.Add([]byte(filterMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		inputs := [][]byte{data}
		if len(data) > filterTrailer {
			inputs = append(inputs, sign(bytes.Clone(data)))
		}
		for _, in := range inputs {
			r := bytes.NewReader(in)
			got, err := readFilter(r)
			if err != nil {
				continue
			}
			var again bytes.Buffer
			if err := got.writeTo(&again); err != nil {
				t.Fatal(err)
			}
			if want := in[:len(in)-r.Len()]; !bytes.Equal(again.Bytes(), want) {
				t.Fatalf("%d bytes written, other than the %d read", again.Len(), len(want))
			}
		}
	})
}

// TestLoadFilters: filters come back where the keys are the same, whatever else
// is in the way is rebuilt, and no key is ever denied.
func TestLoadFilters(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	m := New()
	var keys []uint64
	put := func(n int) {
		var cs []control.Change
		for range n {
			e := watchlist.Pack(&watchlist.Entry{List: "l", Key: plate.Key(rng.Uint64())})
			keys = append(keys, uint64(e.Key()))
			cs = append(cs, control.Change{NewEntry: e})
		}
		m.Apply(cs, m.Snapshot().Version()+1)
	}
	put(20_000)
	write := func() []byte {
		var buf bytes.Buffer
		if err := m.Snapshot().WriteFilters(&buf); err != nil {
			t.Fatal(err)
		}
		return buf.Bytes()
	}
	load := func(data []byte, wantRebuilt int, wantErr string) {
		t.Helper()
		rebuilt, err := m.LoadFilters(bytes.NewReader(data))
		if fmt.Sprint(err) != wantErr || rebuilt != wantRebuilt {
			t.Errorf("%d rebuilt, %v; want %d, %s", rebuilt, err, wantRebuilt, wantErr)
		}
		for _, k := range keys {
			if len(m.Snapshot().exact.find(k)) == 0 {
				t.Fatal("a key that is held is denied")
			}
		}
		if now := write(); wantErr == "<nil>" && wantRebuilt == 0 && !bytes.Equal(now, data) {
			t.Error("the filters are not those that were loaded")
		}
	}
	shards := len(m.Snapshot().exact)
	whole := write()
	load(whole, 0, "<nil>")
	load(nil, shards, "<nil>")
	load(whole[:len(whole)-1], 1, "matcher: read filters: truncated")
	load(append(bytes.Clone(whole), 0), 0, "matcher: read filters: truncated head")
	half := bytes.Clone(whole)
	half[len(half)/2] ^= 4
	if rebuilt, err := m.LoadFilters(bytes.NewReader(half)); err == nil || rebuilt < shards/3 || rebuilt > shards*2/3 {
		t.Errorf("%d of %d rebuilt, %v; want about half and an error", rebuilt, shards, err)
	}

	// A filter in memory loses a bit: its keys are denied until it is loaded anew.
	s := m.Snapshot().exact[shardOf(mix(keys[0]))]
	clear(s.words)
	if len(m.Snapshot().exact.find(keys[0])) != 0 {
		t.Fatal("an empty filter lets a key through")
	}
	load(whole, 0, "<nil>")

	// Other keys in some shards: those are rebuilt, although the records are whole.
	put(3)
	touched := map[int]bool{}
	for _, k := range keys[len(keys)-3:] {
		touched[shardOf(mix(k))] = true
	}
	load(whole, len(touched), "<nil>")
	// The entries change, the keys do not: the filters still fit.
	fresh := write()
	m.Apply([]control.Change{{NewEntry: watchlist.Pack(&watchlist.Entry{List: "m", Key: plate.Key(keys[0])})}}, 100)
	load(fresh, 0, "<nil>")

	if rebuilt, err := New().LoadFilters(bytes.NewReader(whole)); rebuilt != 0 || err != nil {
		t.Errorf("without entries: %d rebuilt, %v", rebuilt, err)
	}
}
