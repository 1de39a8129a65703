package control

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
)

// LoadAll is Load for each of recs in their order, on all processors: decoding a record
// needs nothing but the record, and is most of the work. It calls unreadable, if not nil,
// for every record that cannot be read, in order, from the goroutine of its caller. It
// stops at any other error, as of Load; what came before has then been applied.
//
// The records are not kept. Worth while are some thousand at a time.
func (s *State) LoadAll(recs []Record, unreadable func(*RecordError)) error {
	window := make([]parsed, min(len(recs), loadWindow))
	for len(recs) > 0 {
		n := min(len(recs), len(window))
		if err := s.load(recs[:n], window[:n], unreadable); err != nil {
			return err
		}
		recs = recs[n:]
	}
	return nil
}

const (
	// loadWindow bounds the records that are decoded and not yet applied, and so the
	// memory beside the State: some 100 bytes each.
	loadWindow = 1 << 15
	// loadChunk is how many records a goroutine takes at a time.
	loadChunk = 1 << 8
)

// load loads recs, which are as many as the window has room for. All goroutines decode
// chunks; this one applies them in order as soon as they are decoded, and decodes too
// while the next one is not.
func (s *State) load(recs []Record, window []parsed, unreadable func(*RecordError)) error {
	chunks := (len(recs) + loadChunk - 1) / loadChunk
	helpers := min(runtime.GOMAXPROCS(0), chunks) - 1
	for len(s.bulk) <= max(0, helpers) {
		s.bulk = append(s.bulk, &decoder{bulk: true})
	}
	decoded := make([]chan struct{}, chunks)
	for i := range decoded {
		decoded[i] = make(chan struct{})
	}
	var taken atomic.Int64
	// decode decodes the next chunk that nobody has taken, if there is one.
	decode := func(d *decoder) bool {
		i := int(taken.Add(1)) - 1
		if i >= chunks {
			return false
		}
		for j := i * loadChunk; j < min(len(recs), (i+1)*loadChunk); j++ {
			window[j] = d.parse(recs[j])
		}
		close(decoded[i])
		return true
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range helpers {
		wg.Go(func() {
			for decode(s.bulk[i+1]) {
			}
		})
	}
	for i, more := 0, true; i < chunks; {
		select {
		case <-decoded[i]:
		default:
			if more = more && decode(s.bulk[0]); !more {
				<-decoded[i]
			}
			continue
		}
		for j := i * loadChunk; j < min(len(recs), (i+1)*loadChunk); j++ {
			err := s.apply(recs[j], &window[j], nil)
			window[j] = parsed{}
			var bad *RecordError
			switch {
			case err == nil:
			case !errors.As(err, &bad):
				taken.Store(int64(chunks)) // nobody needs the rest
				return err
			case unreadable != nil:
				unreadable(bad)
			}
		}
		i++
	}
	return nil
}
