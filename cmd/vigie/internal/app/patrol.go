package app

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/redisqueue"
)

// patrolDesk makes steps in Redis and then on the hits topic, so that queues can
// be rebuilt with them. When the topic does not answer, the patrol is told so and
// repeats the step, which changes nothing in Redis and reaches the topic then.
type patrolDesk struct {
	*redisqueue.Queues
	journal stream.Journal
}

func (d patrolDesk) Step(ctx context.Context, req redisqueue.StepRequest) (*alert.Event, error) {
	ev, err := d.Queues.Step(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := d.journal.Append(ctx, []*alert.Event{ev}); err != nil {
		return nil, fmt.Errorf("record the step of alert %s: %w", ev.AlertID, err)
	}
	return ev, nil
}

// feed gives the hub the interface that httpapi asks for.
type feed struct{ *redisqueue.Hub }

func (f feed) Subscribe(ctx context.Context, queue, after string) (httpapi.Subscription, error) {
	s, err := f.Hub.Subscribe(ctx, queue, after)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// expireEvery is how often queues are freed of what is past its retention even
// when nothing new comes.
const expireEvery = time.Hour

// expire keeps idle queues within the legal retention.
func (a *App) expire(ctx context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := a.queues.Expire(ctx, a.desk.Queues()); err != nil && ctx.Err() == nil {
				a.log.Error("alerts past their retention could not be removed; trying again in an hour", zap.Error(err))
			}
		}
	}
}
