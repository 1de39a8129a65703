package kafka

import (
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/streamtest"
)

// The suite that the fakes of streamtest pass must pass here, on both brokers.

func TestSourceSuite(t *testing.T) { sourceSuite(t, SourceConfig{}) }

// A Source with fixed partitions promises what one in a group does.
func TestFixedSuite(t *testing.T) { sourceSuite(t, SourceConfig{Members: 1}) }

func sourceSuite(t *testing.T, cfg SourceConfig) {
	each(t, func(t *testing.T, b backend) {
		streamtest.TestSource(t, func(t *testing.T) streamtest.SourceFixture {
			c := open(t, b, Config{})
			topics(t, c, TopicsConfig{ReadsPartitions: 3})
			cfg := cfg
			cfg.Group = c.prefix + "g"
			return streamtest.SourceFixture{
				Partitions: 3,
				NewMember:  func() stream.Source { return c.Source(cfg) },
				Produce: func(t *testing.T, partition int, vs ...[]byte) {
					var rs []*kgo.Record
					for _, v := range vs {
						rs = append(rs, &kgo.Record{Value: v})
					}
					put(t, c, topicReads, int32(partition), nil, rs...)
				},
			}
		})
	})
}

func TestControlLogSuite(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		streamtest.TestControlLog(t, func(t *testing.T) stream.ControlLog {
			c := open(t, b, Config{})
			topics(t, c, TopicsConfig{})
			return c.ControlLog()
		})
	})
}

func TestJournalSuite(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		streamtest.TestJournal(t, func(t *testing.T) streamtest.JournalFixture {
			c := open(t, b, Config{})
			topics(t, c, TopicsConfig{})
			j := c.Journal()
			return streamtest.JournalFixture{Journal: j, All: func(t *testing.T) []*alert.Event {
				return readAll(t, j)
			}}
		})
	})
}

func TestDeadLettersSuite(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		streamtest.TestDeadLetters(t, func(t *testing.T) streamtest.DeadFixture {
			c := open(t, b, Config{})
			topics(t, c, TopicsConfig{})
			return streamtest.DeadFixture{Dead: c.DeadLetters(), All: func(t *testing.T) []stream.DeadLetter {
				var ls []stream.DeadLetter
				for _, r := range readTopic(t, c, topicDead) {
					l := stream.DeadLetter{Value: r.Value}
					for _, h := range r.Headers {
						switch h.Key {
						case HeaderReason:
							l.Reason = stream.Reason(h.Value)
						case HeaderPartition:
							l.Partition = atoi(t, h.Value)
						case HeaderOffset:
							l.Offset = int64(atoi(t, h.Value))
						}
					}
					ls = append(ls, l)
				}
				return ls
			}}
		})
	})
}

func readAll(t testing.TB, j *Journal) []*alert.Event {
	t.Helper()
	var mu sync.Mutex
	var all []*alert.Event
	if err := j.ReadAll(t.Context(), func(es []*alert.Event) error {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, es...)
		return nil
	}); err != nil {
		t.Fatalf("ReadAll: %v", err)
	}
	return all
}
