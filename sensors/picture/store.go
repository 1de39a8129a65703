package picture

import (
	"context"
	"errors"
	"sync/atomic"

	"vigie/sensors"
)

// Images keeps pictures; *kafka.Images is one.
type Images interface {
	// Put stores a picture under the id of its read and says where. It returns when ctx ends.
	// jpeg must not be changed afterwards.
	Put(ctx context.Context, read string, jpeg []byte) (sensors.Image, error)
}

// Store cleans the pictures of reads and keeps them. Its methods may be called at the same time.
type Store struct {
	cleaner *Cleaner
	images  Images

	stored, failed atomic.Uint64
}

// NewStore returns a Store; it needs both.
func NewStore(cleaner *Cleaner, images Images) (*Store, error) {
	if cleaner == nil || images == nil {
		return nil, errors.New("picture: NewStore needs a Cleaner and Images")
	}
	return &Store{cleaner: cleaner, images: images}, nil
}

// Store keeps what it can of the pictures of a read, either of which may be empty, and says where;
// nil for one that is not kept. The plate comes first: it is small, and what a patrol compares.
func (s *Store) Store(ctx context.Context, readID string, plate, scene []byte) (plateAt, sceneAt *sensors.Image) {
	return s.keep(ctx, readID, plate), s.keep(ctx, readID, scene)
}

func (s *Store) keep(ctx context.Context, readID string, raw []byte) *sensors.Image {
	if len(raw) == 0 || ctx.Err() != nil {
		return nil
	}
	jpeg, err := s.cleaner.Clean(ctx, raw)
	if err != nil {
		return nil // counted by the Cleaner
	}
	at, err := s.images.Put(ctx, readID, jpeg)
	if err != nil {
		s.failed.Add(1)
		return nil
	}
	s.stored.Add(1)
	return &at
}

// StoreStats counts what a Store has done.
type StoreStats struct {
	Stats
	Stored uint64 // pictures kept
	Failed uint64 // good ones that could not be kept
}

// Stats returns the counters so far.
func (s *Store) Stats() StoreStats {
	return StoreStats{Stats: s.cleaner.Stats(), Stored: s.stored.Load(), Failed: s.failed.Load()}
}
