//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"vigie/stream/alert"
	"vigie/stream/kafka"
	"vigie/stream/redisqueue"
)

// verdict compares what had to come with what is there.
type verdict struct {
	Expected   int `json:"hits_expected"`
	Found      int `json:"hits_found"`       // expected, in the queue and on the hits topic
	Duplicates int `json:"duplicates"`       // entries of the queue beyond one for each alert
	Unexpected int `json:"hits_unexpected"`  // in the queue or on the topic, and never due
	Repeated   int `json:"hits_topic_again"` // records of the hits topic beyond one for each alert: at least once is promised
}

// good reports whether nothing was lost, doubled or made up.
func (v verdict) good() bool {
	return v.Found == v.Expected && v.Duplicates == 0 && v.Unexpected == 0
}

// judge counts. queued and journalled are ids of alerts, one for each entry.
func judge(expected map[string]bool, queued, journalled []string) verdict {
	v := verdict{Expected: len(expected)}
	inQueue, onTopic := map[string]int{}, map[string]int{}
	for _, id := range queued {
		if inQueue[id]++; inQueue[id] > 1 {
			v.Duplicates++
		} else if !expected[id] {
			v.Unexpected++
		}
	}
	for _, id := range journalled {
		if onTopic[id]++; onTopic[id] > 1 {
			v.Repeated++
		} else if !expected[id] && inQueue[id] == 0 {
			v.Unexpected++
		}
	}
	for id := range expected {
		if inQueue[id] > 0 && onTopic[id] > 0 {
			v.Found++
		}
	}
	return v
}

// queued reads the queue in a database of Redis from its beginning.
func queued(ctx context.Context, redis string, db int) (alerts []alert.Alert, err error) {
	q, err := redisqueue.Open(redisqueue.Config{Addr: redis, DB: db})
	if err != nil {
		return nil, err
	}
	defer q.Close()
	hub := redisqueue.NewHub(q, redisqueue.HubConfig{Buffer: 1 << 16})
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	sub, err := hub.Subscribe(ctx, queue, "0")
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	for {
		// A queue has no end; it is there when nothing comes for a second.
		next, cancel := context.WithTimeout(ctx, time.Second)
		m, err := sub.Next(next)
		cancel()
		switch {
		case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			if hub.Stats().Failures > 0 {
				return nil, errors.New("redis did not answer while the queue was read")
			}
			return alerts, nil
		case err != nil:
			return nil, fmt.Errorf("queue %s: %w", queue, err)
		case m.Kind != redisqueue.KindAlert:
			continue
		}
		var a alert.Alert
		if err := json.Unmarshal(m.Data, &a); err != nil {
			return nil, fmt.Errorf("queue %s: %w", queue, err)
		}
		alerts = append(alerts, a)
	}
}

// journalled reads the hits topic.
func journalled(ctx context.Context, c *kafka.Cluster) (ids []string, err error) {
	err = c.Journal().ReadAll(ctx, func(events []*alert.Event) error {
		for _, e := range events {
			if e.Alert != nil {
				ids = append(ids, e.AlertID)
			}
		}
		return nil
	})
	return ids, err
}

// check compares the queue and the hits topic with what had to come.
func (s *site) check(ctx context.Context, db int, expected map[string]bool) (verdict, []alert.Alert, error) {
	alerts, err := queued(ctx, s.redis.Addr(), db)
	if err != nil {
		return verdict{}, nil, err
	}
	hits, err := journalled(ctx, s.cluster)
	if err != nil {
		return verdict{}, nil, err
	}
	ids := make([]string, len(alerts))
	for i := range alerts {
		ids[i] = alerts[i].ID
	}
	return judge(expected, ids, hits), alerts, nil
}
