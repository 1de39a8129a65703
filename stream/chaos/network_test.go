//go:build linux

package chaos

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"vigie/deploy/services"
	"vigie/stream/streamtest"
)

// cut is a way to break the network.
type cut struct {
	name string
	dir  streamtest.Direction // held, connections stay open; 0 resets them and all new ones
}

var cuts = []cut{
	{"answers held", streamtest.ToClient},
	{"requests held", streamtest.ToTarget},
	{"both ways held", streamtest.BothWays},
	{"reset and refused", 0},
}

// maxDials is how many connections a process may make within a second: more is a storm. A
// matcher of four partitions uses up to a dozen, each with a request under way: fetches, the
// control log, commits, hits, dead letters, the group. All may be made anew when a network heals.
const maxDials = 16

// TestRedisCut cuts the network between the matcher and Redis.
func TestRedisCut(t *testing.T) {
	proxy := streamtest.NewProxy(t, sharedRedis(t).Addr())
	s := newSite(t, siteConfig{kafka: []string{sharedKafka(t)}, redis: sharedRedis(t).Addr()})
	s.cutMatcher("Redis", proxy, cuts[:short(1, len(cuts))], "VIGIE_REDIS_ADDR="+proxy.Addr())
}

// cutMatcher cuts a matcher off from a service that it reaches through proxy, in each way.
func (s *site) cutMatcher(service string, proxy *streamtest.Proxy, ways []cut, env string) {
	t, rng := s.t, dice(s.t)
	t.Helper()
	gateway := s.serve("office", office)
	m := s.serve("matcher-0", "matcher", env)
	tr := s.begin(fmt.Sprintf("network to %s cut, %d ways", service, len(ways)), plan{
		rate: 1000, share: 0.1, changes: 5, staleness: cutOff, duration: time.Duration(len(ways)) * short(8*time.Second, 20*time.Second),
	}, gateway, m)
	for _, way := range ways {
		time.Sleep(between(rng, time.Second, 2*time.Second))
		dials, lag := len(proxy.Dials()), s.lag()
		tr.strike()
		passing := way.dir
		if way.dir == 0 {
			passing = streamtest.BothWays
			proxy.Down()
		} else {
			proxy.Hold(way.dir)
		}
		passed := proxy.Passed(passing)
		time.Sleep(between(rng, 4*time.Second, short(5*time.Second, 8*time.Second)))
		if n := proxy.Passed(passing) - passed; n > 64<<10 { // what was in the hand of the proxy
			t.Errorf("%s: %d bytes went through", way.name, n)
		}
		grown := s.lag() - lag
		if grown < 1000 {
			t.Errorf("%s: the lag grew by %d reads only: the cut was not felt", way.name, grown)
		}
		proxy.Heal()
		tr.heal()
		s.until("the matcher has caught up", func() bool { l := s.lag(); return l >= 0 && l < 1000 })
		peak := streamtest.Peak(proxy.Dials()[dials:], time.Second)
		tr.shown("%s, %s: the lag grew by %d reads, the matcher dialled %d times, at most %d within a second",
			service, way.name, grown, len(proxy.Dials())-dials, peak)
		if peak > maxDials {
			t.Errorf("%s: %d connections within a second, more than %d", way.name, peak, maxDials)
		}
		time.Sleep(steady * probeEvery)
	}
	tr.finish()
}

// proxiedKafka is a broker of its own that clients reach by its address, or through the proxy
// by the address of the proxy: what a broker tells of itself depends on how it is asked.
func proxiedKafka(t *testing.T) (*services.Kafka, *streamtest.Proxy) {
	t.Helper()
	proxy := streamtest.NewProxy(t, "")
	ports := freePorts(t, 4)
	addr := func(i int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i])) }
	proxy.SetTarget(addr(3))
	return startKafka(t, services.KafkaConfig{Port: ports[0], Properties: map[string]string{
		"listeners":                      "PLAINTEXT://" + addr(0) + ",INTERNAL://" + addr(1) + ",CONTROLLER://" + addr(2) + ",PROXIED://" + addr(3),
		"advertised.listeners":           "PLAINTEXT://" + addr(0) + ",INTERNAL://" + addr(1) + ",PROXIED://" + proxy.Addr(),
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT",
		"controller.quorum.voters":       "1@" + addr(2),
	}}), proxy
}

// startKafka starts a broker for one test.
func startKafka(t *testing.T, cfg services.KafkaConfig) *services.Kafka {
	t.Helper()
	streamtest.Need(t, "VIGIE_TEST_KAFKA") // then Java and the jars are there
	jars, err := services.KafkaJars(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Dir, cfg.Jars = filepath.Join(t.TempDir(), "kafka"), jars
	k, err := services.StartKafka(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Kill(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// freePorts returns n ports that nobody listens on, below those of outgoing connections, one of
// which could otherwise keep a service that is down from coming back.
func freePorts(t *testing.T, n int) (ports []int) {
	t.Helper()
	for port := 12000 + int(lab.seed%5000); len(ports) < n && port < 20000; port++ {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			defer ln.Close() // all at the end, so that none is returned twice
			ports = append(ports, port)
		}
	}
	if len(ports) < n {
		t.Fatal("no free ports")
	}
	return ports
}
