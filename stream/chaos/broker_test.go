//go:build linux && chaos

package chaos

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/deploy/services"
	"vigie/stream/streamtest"
)

// TestBroker kills the only broker and starts it again, and in a second run stops it in its
// tracks: connections stay and nobody answers.
func TestBroker(t *testing.T) {
	for _, how := range []string{"killed", "stopped"} {
		t.Run(how, func(t *testing.T) {
			k := startKafka(t, services.KafkaConfig{})
			s := newSite(t, siteConfig{kafka: []string{k.Addr()}, redis: sharedRedis(t).Addr()})
			tr, ending := s.beginOnBrokers("the only broker "+how, 32*time.Second)
			time.Sleep(between(dice(t), time.Second, 2*time.Second))
			tr.strike()
			if how == "killed" {
				tr.must(k.Kill())
				time.Sleep(between(dice(t), 3*time.Second, 6*time.Second))
				tr.must(k.Restart(t.Context()))
			} else {
				tr.must(k.Pause())
				time.Sleep(4 * time.Second)
				tr.endDuring(ending)
				time.Sleep(20*time.Second - time.Since(tr.strikes[0]))
				tr.must(k.Resume())
			}
			tr.heal()
			tr.finish()
			if tr.res.ProbesRefused == 0 {
				t.Error("the gateway took every read: the broker was not away")
			}
		})
	}
}

// brokerSession is broker.session.timeout.ms, Kafka's default.
const brokerSession = 9 * time.Second

// TestCluster kills, and then stops, a broker of three: the others must go on without it. The
// recovery counts from the fault.
func TestCluster(t *testing.T) {
	streamtest.Need(t, "VIGIE_TEST_KAFKA") // then Java and the jars are there
	jars, err := services.KafkaJars(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	c, err := services.StartKafkaCluster(t.Context(), services.KafkaConfig{Dir: filepath.Join(t.TempDir(), "kafka"), Jars: jars}, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Kill(); err != nil {
			t.Error(err)
		}
	})
	for _, tt := range []struct {
		who  string
		pick func(*site) int
		how  string
	}{
		{"any one", func(s *site) int { return dice(s.t).IntN(3) }, "killed"},
		{"the leader of most partitions", (*site).mostLeading, "killed"},
		{"the coordinator of the group", (*site).coordinator, "killed"},
		{"the coordinator of the group", (*site).coordinator, "stopped"},
	} {
		t.Run(tt.who+" "+tt.how, func(t *testing.T) {
			s := newSite(t, siteConfig{kafka: c.Addrs(), redis: sharedRedis(t).Addr(), env: []string{"VIGIE_KAFKA_TOPICS_REPLICATION=3"}})
			away := map[string]time.Duration{"killed": 12 * time.Second, "stopped": 20 * time.Second}[tt.how]
			tr, ending := s.beginOnBrokers(tt.who+" of three brokers "+tt.how, away+6*time.Second)
			time.Sleep(between(dice(t), time.Second, 2*time.Second))
			b := c.Broker(tt.pick(s))
			leads, coordinates := s.leads(b.ID()), s.coordinator() == b.ID()
			tr.strike()
			if tt.how == "killed" {
				tr.must(b.Kill())
			} else {
				tr.must(b.Pause())
			}
			tr.heal() // nothing is mended: the others take over
			time.Sleep(4 * time.Second)
			if tt.how == "stopped" {
				tr.endDuring(ending)
			}
			time.Sleep(away - time.Since(tr.strikes[0]))
			tr.shown("broker %d led %d of %d partitions, coordinator %v; now it leads %d", b.ID(), leads, partitions, coordinates, s.leads(b.ID()))
			if s.leads(b.ID()) > 0 {
				t.Error("it still leads: it was not away for the others")
			}
			if tt.how == "killed" {
				tr.must(b.Restart(t.Context()))
			} else {
				tr.must(b.Resume())
			}
			tr.must(c.AwaitInSync(t.Context()))
			tr.heal()
			tr.finish()
			limit := session + recoverySlack
			if tt.how == "stopped" {
				// Its connections stay open: the controller notices when its session has ended, and
				// whoever waits for an answer when a third of that of the group has.
				limit = brokerSession + session/3 + recoverySlack
			}
			if tr.res.RecoverySeconds > limit.Seconds() {
				t.Errorf("recovered after %v s, want within %v", tr.res.RecoverySeconds, limit)
			}
		})
	}
}

// beginOnBrokers is begin with two processes more that can be ended while brokers are away.
func (s *site) beginOnBrokers(fault string, lasting time.Duration) (*trial, []*process) {
	s.t.Helper()
	gateway, m := s.serve("office", office), s.serve("matcher-0", "matcher")
	tr := s.begin(fault, plan{rate: 1000, share: 0.1, changes: 2, duration: lasting, staleness: cutOff}, gateway, m)
	return tr, []*process{s.serve("matcher-to-end", "matcher"), s.serve("office-to-end", office)}
}

// endDuring sends SIGTERM to processes while a broker does not answer.
func (tr *trial) endDuring(ps []*process) {
	tr.t.Helper()
	for _, p := range ps {
		tr.shown("%s ended %.2f s after SIGTERM while the broker was stopped", p.name, tr.terminate(p).Seconds())
	}
}

// must fails the test when an injection fails.
func (tr *trial) must(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

// leads is how many partitions of the reads topic a broker leads.
func (s *site) leads(id int) (n int) {
	s.t.Helper()
	for _, p := range s.leaders() {
		if p == id {
			n++
		}
	}
	return n
}

// leaders are the brokers that lead the partitions of the reads topic.
func (s *site) leaders() (ids []int) {
	s.t.Helper()
	s.until("the brokers tell who leads", func() bool {
		// A transport answers from what it knew before.
		transport := &kafkago.Transport{}
		defer transport.CloseIdleConnections()
		cl := &kafkago.Client{Addr: kafkago.TCP(s.cfg.kafka...), Transport: transport, Timeout: 2 * time.Second}
		m, err := cl.Metadata(context.Background(), &kafkago.MetadataRequest{Topics: []string{s.readsTopic()}})
		if err != nil || len(m.Topics) != 1 || len(m.Topics[0].Partitions) != partitions {
			return false
		}
		ids = nil
		for _, p := range m.Topics[0].Partitions {
			ids = append(ids, p.Leader.ID)
		}
		return true
	})
	return ids
}

// mostLeading is the broker that leads the most partitions of the reads topic.
func (s *site) mostLeading() int {
	s.t.Helper()
	count := map[int]int{}
	most := -1
	for _, id := range s.leaders() {
		if count[id]++; most < 0 || count[id] > count[most] {
			most = id
		}
	}
	return most
}

// coordinator is the broker that coordinates the group of the matchers.
func (s *site) coordinator() int {
	s.t.Helper()
	res, err := s.kafk.FindCoordinator(context.Background(), &kafkago.FindCoordinatorRequest{
		Addr: s.kafk.Addr, Key: s.id, KeyType: kafkago.CoordinatorKeyTypeConsumer,
	})
	if err != nil || res.Error != nil || res.Coordinator == nil {
		s.t.Fatalf("who coordinates the group: %+v, %v", res, err)
	}
	return res.Coordinator.NodeID
}
