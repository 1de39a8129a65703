package redisqueue

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"vigie/stream"
)

// refusals are the words with which Redis refuses a call that may succeed later: it is a
// replica (READONLY, MASTERDOWN), still loads its data, has no memory left, has too few
// replicas, cannot write to its disk, or lacks a part of the cluster.
var refusals = [...]string{"READONLY", "LOADING", "MASTERDOWN", "OOM", "NOREPLICAS", "MISCONF", "CLUSTERDOWN"}

// untold stands for the identity of a server that tells none, as miniredis does. A loss is
// still found by the missing mark.
const untold = "untold"

// errReplica means that the server is not one to write to.
var errReplica = errors.New("this Redis is a replica: alerts wait until it or another one is the master")

// Connects implements stream.QueueStore.
func (q *Queues) Connects() int64 { return q.connects.Load() }

// Server implements stream.QueueStore. The identity is that of the process (run_id), since
// a restart loses what was not synced yet, and of the replication history
// (master_replid), since a fail-over loses what was not replicated. In a cluster it is
// that of all masters.
func (q *Queues) Server(ctx context.Context) (stream.QueueServer, error) {
	s, err := q.server(ctx)
	if err != nil {
		return s, fmt.Errorf("redisqueue: ask for the server: %w", err)
	}
	return s, nil
}

func (q *Queues) server(ctx context.Context) (s stream.QueueServer, err error) {
	mark, err := q.rdb.Get(ctx, q.keys.server()).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return s, q.failed(err)
	}
	if id, at, ok := strings.Cut(mark, " "); ok {
		if ms, err := strconv.ParseInt(at, 10, 64); err == nil {
			s.Marked, s.MarkedAt = id, time.UnixMilli(ms)
		}
	}
	cluster, ok := q.rdb.(*redis.ClusterClient)
	if !ok {
		s.ID, err = q.identity(ctx, q.rdb)
		return s, err
	}
	var mu sync.Mutex
	var ids []string
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		id, err := q.identity(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return s, err
	}
	slices.Sort(ids)
	sum := sha256.Sum256([]byte(strings.Join(ids, " ")))
	s.ID = hex.EncodeToString(sum[:16])
	return s, nil
}

// identity asks one server who it is.
func (q *Queues) identity(ctx context.Context, rdb redis.Cmdable) (string, error) {
	pipe := rdb.Pipeline()
	server := pipe.Info(ctx, "server")
	replication := pipe.Info(ctx, "replication")
	_, _ = pipe.Exec(ctx) // each command has its own error
	var refused redis.Error
	if err := cmp.Or(server.Err(), replication.Err()); err != nil {
		if errors.As(err, &refused) && !slices.ContainsFunc(refusals[:], func(word string) bool { return redis.HasErrorPrefix(err, word) }) {
			return untold, nil // it answers, and does not know or allow INFO
		}
		return "", q.failed(err)
	}
	if infoField(replication.Val(), "role") == "slave" {
		return "", errReplica
	}
	run, history := infoField(server.Val(), "run_id"), infoField(replication.Val(), "master_replid")
	if run == "" && history == "" {
		return untold, nil
	}
	return run + ":" + history, nil
}

// Mark implements stream.QueueStore.
func (q *Queues) Mark(ctx context.Context, server string, at time.Time) error {
	value := server + " " + strconv.FormatInt(at.UnixMilli(), 10)
	if err := q.rdb.Set(ctx, q.keys.server(), value, 0).Err(); err != nil {
		return fmt.Errorf("redisqueue: mark the server: %w", q.failed(err))
	}
	return nil
}
