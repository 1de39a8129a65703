// Package loop is the plainest consumer that kafka-go can be: one connection and one
// goroutine for each partition, every value read into a buffer and forgotten. What
// Vigie takes more than it, for decoding, matching, publishing and committing, is
// what there is to save. It is the only package of bench that imports kafka-go.
package loop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go" //nolint:depguard // it is what is measured
	"golang.org/x/sync/errgroup"
)

// Span is the offsets of a partition from First until before End.
type Span struct {
	Partition  int
	First, End int64
}

// fetchBytes is what Vigie asks for at a time, too.
const fetchBytes = 1 << 20

// Run reads the spans of a topic to their ends and returns how many values they
// held. It calls begin when it is connected, and reads once that returns.
func Run(ctx context.Context, broker, topic string, spans []Span, begin func() error) (int64, error) {
	conns := make([]*kafkago.Conn, len(spans))
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i, s := range spans {
		c, err := kafkago.DialLeader(ctx, "tcp", broker, topic, s.Partition)
		if err != nil {
			return 0, fmt.Errorf("loop: partition %d: %w", s.Partition, err)
		}
		conns[i] = c
		if _, err := c.Seek(s.First, kafkago.SeekAbsolute|kafkago.SeekDontCheck); err != nil {
			return 0, fmt.Errorf("loop: partition %d: %w", s.Partition, err)
		}
	}
	if err := begin(); err != nil {
		return 0, err
	}
	var total atomic.Int64
	var g errgroup.Group
	for i, s := range spans {
		g.Go(func() error {
			n, err := read(conns[i], s)
			total.Add(n)
			if err != nil {
				return fmt.Errorf("loop: partition %d: %w", s.Partition, err)
			}
			return nil
		})
	}
	err := g.Wait()
	return total.Load(), err
}

// read reads one partition.
func read(c *kafkago.Conn, s Span) (n int64, err error) {
	buf := make([]byte, 64<<10)
	for next := s.First; next < s.End; {
		batch := c.ReadBatchWith(kafkago.ReadBatchConfig{MinBytes: 1, MaxBytes: fetchBytes, MaxWait: 250 * time.Millisecond})
		for err == nil {
			if _, err = batch.Read(buf); err == nil {
				// A fetch begins with the whole batch in which its offset lies.
				if at := batch.Offset(); at > next {
					n, next = n+1, at
				}
			}
		}
		if !errors.Is(err, io.EOF) {
			batch.Close() // says the same again
			return n, err
		}
		if err = batch.Close(); err != nil {
			return n, err
		}
	}
	return n, nil
}
