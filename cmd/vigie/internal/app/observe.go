package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/config"
	"vigie/stream/alert"
	"vigie/stream/kafka"
	"vigie/stream/ledger"
	"vigie/stream/redisqueue"
)

// Observer looks at what the service has produced, for `vigie load check` and for
// tests. It changes nothing.
type Observer struct {
	kafka  *kafka.Cluster
	queues *redisqueue.Queues
}

// Observe connects to the Kafka and the Redis of a configuration. What runs inside
// another process cannot be looked at.
func Observe(ctx context.Context, cfg *config.Config, log *zap.Logger) (*Observer, error) {
	if cfg.Embedded() {
		return nil, errors.New("the queues and the hits topic can be looked at on a real Kafka and Redis only: set kafka.brokers and redis.addr as the service has them (embedded ones belong to their process)")
	}
	cluster, err := Cluster(cfg, log)
	if err != nil {
		return nil, err
	}
	queues, err := Queues(cfg, log)
	if err != nil {
		return nil, errors.Join(err, cluster.Close())
	}
	o := &Observer{kafka: cluster, queues: queues}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	if err := Reach(ctx, cluster); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	if err := queues.Ping(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("%w (setting redis.addr, VIGIE_REDIS_ADDR)", err), o.Close())
	}
	return o, nil
}

// Observer shares the connections of a process; it is not to be closed.
func (a *App) Observer() *Observer { return &Observer{kafka: a.kafka, queues: a.queues} }

// Close closes the connections.
func (o *Observer) Close() error { return errors.Join(o.queues.Close(), o.kafka.Close()) }

const (
	// quiet is how long the end of a queue stays the end: a queue is read by
	// following it.
	quiet = time.Second
	// skew is how far the clocks of the machines may be apart.
	skew = time.Minute
)

// Alerts returns what the queue of a ledger and the hits topic hold since the ledger
// began. The queue is read first: what comes meanwhile is on the topic only.
func (o *Observer) Alerts(ctx context.Context, h ledger.Header) (ledger.Observed, error) {
	var obs ledger.Observed
	from := time.UnixMicro(h.Start).Add(-skew)
	var err error
	if obs.Queue, err = o.queue(ctx, h.Queue, from); err != nil {
		return obs, err
	}
	obs.Hits = []ledger.Alert{}
	err = o.kafka.Journal().ReadAll(ctx, func(events []*alert.Event) error {
		for _, e := range events {
			if e.Alert != nil && e.Alert.List.ID == h.List && e.At >= from.UnixMilli() {
				obs.Hits = append(obs.Hits, ledger.AlertOf(e.Alert, e.At))
			}
		}
		return nil
	})
	return obs, err
}

// queue returns the alert messages that a queue has had since from.
func (o *Observer) queue(ctx context.Context, name string, from time.Time) (alerts []ledger.Alert, err error) {
	hub := redisqueue.NewHub(o.queues, redisqueue.HubConfig{Buffer: 1 << 16})
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- hub.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	sub, err := hub.Subscribe(ctx, name, fmt.Sprintf("%d-0", from.UnixMilli()))
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	for {
		next, cancel := context.WithTimeout(ctx, quiet)
		m, err := sub.Next(next)
		cancel()
		switch {
		case err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			if hub.Stats().Failures > 0 {
				return nil, fmt.Errorf("queue %s: Redis did not answer, so its end is not known; try again", name)
			}
			return alerts, nil
		case err != nil:
			return nil, fmt.Errorf("queue %s: %w", name, err)
		case m.Kind != redisqueue.KindAlert:
			continue
		}
		var a alert.Alert
		if json.Unmarshal(m.Data, &a) != nil {
			return nil, fmt.Errorf("queue %s: message %s holds no alert", name, m.ID)
		}
		var stored int64
		if _, err := fmt.Sscanf(m.ID, "%d-", &stored); err != nil {
			return nil, fmt.Errorf("queue %s: message id %s", name, m.ID)
		}
		alerts = append(alerts, ledger.AlertOf(&a, stored))
	}
}

// Committed returns the committed offsets of the matchers by partition.
func (o *Observer) Committed(ctx context.Context, group string) ([]int64, error) {
	return o.kafka.Committed(ctx, group)
}
