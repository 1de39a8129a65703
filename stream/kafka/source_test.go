package kafka

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"vigie/stream"
	"vigie/stream/streamtest"
)

// A tally counts how often each value was handed on, and which offsets were committed.
type tally struct {
	mu        sync.Mutex
	seen      map[string]int
	committed map[int]int64
	wrong     []string
}

func newTally() *tally { return &tally{seen: make(map[string]int), committed: make(map[int]int64)} }

func (ty *tally) add(b *stream.Batch) {
	ty.mu.Lock()
	defer ty.mu.Unlock()
	for _, r := range b.Records {
		ty.seen[string(r.Value)]++
	}
}

func (ty *tally) count() int {
	ty.mu.Lock()
	defer ty.mu.Unlock()
	return len(ty.seen)
}

// check fails unless each of n values numbered with prefix came, and reports how many came again.
func (ty *tally) check(t *testing.T, prefix string, n int) (again int) {
	t.Helper()
	ty.mu.Lock()
	defer ty.mu.Unlock()
	lost := 0
	for _, v := range numbered(prefix, n) {
		if ty.seen[v] == 0 {
			lost++
		}
		again += max(0, ty.seen[v]-1)
	}
	if lost > 0 {
		t.Errorf("%d of %d records are lost", lost, n)
	}
	for _, w := range ty.wrong {
		t.Error(w)
	}
	return again
}

// A member is a running Source.
type member struct {
	s      *Source
	cancel context.CancelFunc
	done   chan error
}

func start(t *testing.T, s *Source, consume func(context.Context, stream.Partition) error) *member {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{s: s, cancel: cancel, done: make(chan error, 1)}
	go func() { m.done <- s.Run(ctx, consume) }()
	t.Cleanup(func() { m.stop(t) })
	return m
}

// stop returns how long Run took to return.
func (m *member) stop(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	m.cancel()
	select {
	case err := <-m.done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		m.done <- nil
	case <-time.After(patience):
		t.Fatalf("Run has not returned after %v", patience)
	}
	return time.Since(began)
}

func (m *member) owns() int { return len(m.s.Stats().Partitions) }

// produceSteadily writes n numbered values over d to all of the partitions.
func produceSteadily(t *testing.T, c *Cluster, partitions, n int, d time.Duration) {
	t.Helper()
	cl := client(t, c, kgo.DefaultProduceTopic(c.topic(topicReads)), kgo.ProducerLinger(0))
	defer cl.Close()
	for i, v := range numbered("v", n) {
		cl.Produce(context.Background(), &kgo.Record{Partition: int32(i % partitions), Value: []byte(v)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
		if i%50 == 49 {
			time.Sleep(d * 50 / time.Duration(n))
		}
	}
	if err := cl.Flush(context.Background()); err != nil {
		t.Errorf("flush: %v", err)
	}
}

// committed asks the group's coordinator.
func committed(t *testing.T, c *Cluster, group string, partitions int) []int64 {
	t.Helper()
	ids := numbers(partitions)
	res, err := c.client.OffsetFetch(t.Context(), &kafkago.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{c.topic(topicReads): ids}})
	if err != nil {
		t.Fatalf("OffsetFetch: %v", err)
	}
	offsets := make([]int64, partitions)
	for _, p := range res.Topics[c.topic(topicReads)] {
		offsets[p.Partition] = p.CommittedOffset
	}
	return offsets
}

// Members come and go while reads come in. Nothing is lost, and because every consume commits
// on its way out, nothing comes twice.
func TestRebalance(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		const partitions, n = 4, 3000
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: partitions})
		ty := newTally()
		consume := func(ctx context.Context, p stream.Partition) error {
			var batch stream.Batch
			var next int64
			for ctx.Err() == nil {
				if err := p.Fetch(ctx, &batch); err != nil {
					if ctx.Err() != nil {
						break
					}
					return err
				}
				ty.add(&batch)
				next = batch.Next
			}
			// It commits only here: the generation is over, and the commit must still count.
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			if next == 0 {
				return nil // it was over before anything was known of the partition
			}
			return p.Commit(last, next)
		}
		cfg := SourceConfig{Group: c.prefix + "g", SessionTimeout: 3 * time.Second, HeartbeatInterval: 150 * time.Millisecond, MaxWait: 50 * time.Millisecond}
		source := func() *Source { return open(t, b, Config{Prefix: c.prefix}).Source(cfg) }
		first := start(t, source(), consume)
		streamtest.Eventually(t, patience, "the first member", func() bool { return first.owns() == partitions })
		var wg sync.WaitGroup
		wg.Go(func() { produceSteadily(t, c, partitions, n, 3*time.Second) })
		second := start(t, source(), consume)
		streamtest.Eventually(t, patience, "the partitions to be shared", func() bool { return first.owns() == 2 && second.owns() == 2 })
		third := start(t, source(), consume)
		streamtest.Eventually(t, patience, "three to share", func() bool { return third.owns() > 0 && first.owns()+second.owns()+third.owns() == partitions })
		first.stop(t)
		streamtest.Eventually(t, patience, "two to take over", func() bool { return second.owns()+third.owns() == partitions })
		second.stop(t)
		wg.Wait()
		streamtest.Eventually(t, patience, "all reads", func() bool { return ty.count() == n })
		third.stop(t)
		if again := ty.check(t, "v", n); again > 0 {
			t.Errorf("%d records came again, want none: a commit on the way out did not count", again)
		}
		var sum int64
		for _, o := range committed(t, c, cfg.Group, partitions) {
			sum += o
		}
		if sum != n {
			t.Errorf("committed offsets add up to %d, want %d", sum, n)
		}
	})
}

// A process that was stopped for longer than the session goes on and commits the batch it had
// in hand: it is refused, and what the new owner has committed stays.
func TestZombieCommit(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, nil, values(numbered("v", 20)...)...)

		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), zombieEnv+"="+b.addr+" "+c.prefix)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			cmd.Process.Kill()
			cmd.Wait()
		}()
		out := bufio.NewScanner(pipe)
		if !out.Scan() || out.Text() != "5 records, 2 of them committed" {
			t.Fatalf("the member says %q", out.Text())
		}
		if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		ty := newTally()
		heir := start(t, c.Source(zombieConfig(c.prefix)), func(ctx context.Context, p stream.Partition) error {
			return consume(ctx, p, ty.add)
		})
		streamtest.Eventually(t, patience, "the heir to commit all", func() bool { return committed(t, c, c.prefix+"g", 1)[0] == 20 })
		if n := ty.count(); n != 18 {
			t.Errorf("the heir has read %d records, want the 18 that were not committed", n)
		}
		if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		in.Write([]byte("go on\n"))
		if !out.Scan() || !strings.Contains(out.Text(), ErrNotOwner.Error()) {
			t.Errorf("the zombie's commit: %q, want %q", out.Text(), ErrNotOwner)
		}
		if now := committed(t, c, c.prefix+"g", 1)[0]; now != 20 {
			t.Errorf("committed is %d after the zombie's commit of 5, want 20", now)
		}
		heir.stop(t)
	})
}

// zombieEnv makes the test binary a member of TestZombieCommit's group: address and prefix.
const zombieEnv = "VIGIE_TEST_ZOMBIE"

func zombieConfig(prefix string) SourceConfig {
	return SourceConfig{Group: prefix + "g", SessionTimeout: 1500 * time.Millisecond, HeartbeatInterval: 200 * time.Millisecond,
		RebalanceTimeout: 2 * time.Second, MaxRecords: 5}
}

// zombie commits 2 of 5 records, waits to be told to go on, and commits the others.
func zombie(args string) int {
	addr, prefix, _ := strings.Cut(args, " ")
	c, err := Open(Config{Brokers: []string{addr}, Prefix: prefix})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var once sync.Once
	err = c.Source(zombieConfig(prefix)).Run(ctx, func(ctx context.Context, p stream.Partition) error {
		var batch stream.Batch
		for len(batch.Records) == 0 {
			if err := p.Fetch(ctx, &batch); err != nil {
				return err
			}
		}
		if err := p.Commit(ctx, 2); err != nil {
			return err
		}
		once.Do(func() {
			fmt.Println(len(batch.Records), "records, 2 of them committed")
			bufio.NewScanner(os.Stdin).Scan()
			last, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer stop()
			fmt.Println(p.Commit(last, batch.Next))
			cancel()
		})
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	return 0
}

// The coordinator's refusal is told apart from a failing network.
func TestCommitNotOwner(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, nil, values("a")...)
		parts := make(chan *partition, 1)
		var once sync.Once
		m := start(t, c.Source(SourceConfig{Group: c.prefix + "g"}), func(ctx context.Context, sp stream.Partition) error {
			once.Do(func() {
				p := sp.(*partition)
				defer func() { parts <- p }()
				p.start = 5
				if err := p.Commit(ctx, 4); err == nil || errors.Is(err, ErrNotOwner) {
					t.Errorf("a commit of 4 after 5: %v, want a refusal", err)
				}
				p.start = -1
				// The group moves on without this member: somebody removes it, as timeouts do.
				cl := client(t, c)
				defer cl.Close()
				req := kmsg.NewPtrLeaveGroupRequest()
				lm := kmsg.NewLeaveGroupRequestMember()
				lm.MemberID = p.gen.MemberID
				req.Group, req.MemberID, req.Members = c.prefix+"g", lm.MemberID, append(req.Members, lm)
				if _, err := req.RequestWith(ctx, cl); err != nil {
					t.Errorf("LeaveGroup: %v", err)
				}
				if err := p.Commit(ctx, 1); !errors.Is(err, ErrNotOwner) {
					t.Errorf("a commit without membership: %v, want ErrNotOwner", err)
				}
			})
			<-ctx.Done()
			return nil
		})
		p := <-parts
		m.stop(t)
		if err := p.Commit(t.Context(), 1); !errors.Is(err, ErrNotOwner) {
			t.Errorf("a commit after Run: %v, want ErrNotOwner", err)
		}
		if got := committed(t, c, c.prefix+"g", 1)[0]; got != -1 {
			t.Errorf("committed is %d, want none", got)
		}
	})
}

// Leaving hands the partitions over at once, not after the session timeout.
func TestLeave(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 2})
		idle := func(ctx context.Context, p stream.Partition) error { return consume(ctx, p, func(*stream.Batch) {}) }
		cfg := SourceConfig{Group: c.prefix + "g"} // a session of 10 s
		m := start(t, c.Source(cfg), idle)
		streamtest.Eventually(t, patience, "the partitions", func() bool { return m.owns() == 2 })
		if took := m.stop(t); took > 2*time.Second {
			t.Errorf("leaving took %v", took)
		}
		began := time.Now()
		next := start(t, c.Source(cfg), idle)
		streamtest.Eventually(t, patience, "the next member", func() bool { return next.owns() == 2 })
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("the next member had the partitions after %v", took)
		}
	})
}

// Brokers that do not answer (SIGSTOP, a cut cable) do not keep a process from stopping.
func TestStopWhileBrokersHang(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 2})
		far, way := through(t, b, Config{Prefix: c.prefix})
		s := far.Source(SourceConfig{Group: c.prefix + "g"})
		m := start(t, s, func(ctx context.Context, p stream.Partition) error {
			var batch stream.Batch
			for ctx.Err() == nil {
				if err := p.Fetch(ctx, &batch); err != nil && ctx.Err() == nil {
					return err
				}
			}
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 300*time.Millisecond)
			defer cancel()
			return p.Commit(last, 0)
		})
		streamtest.Eventually(t, patience, "the partitions", func() bool { return m.owns() == 2 })
		hung.begin(way)
		time.Sleep(50 * time.Millisecond)
		if took := m.stop(t); took > 2300*time.Millisecond {
			t.Errorf("it took %v, want 2 s after the last consume", took)
		}
	})
}

// Brokers that go away and come back are waited for, and nothing is lost.
func TestBrokersAway(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 2})
		far, way := through(t, b, Config{Prefix: c.prefix, Timeout: 2 * time.Second})
		s := far.Source(SourceConfig{
			Group: c.prefix + "g", SessionTimeout: 3 * time.Second, HeartbeatInterval: 300 * time.Millisecond})
		ty := newTally()
		m := start(t, s, func(ctx context.Context, p stream.Partition) error { return consume(ctx, p, ty.add) })
		n := 0
		produce := func() {
			vs := numbered("v", n+50)[n:]
			put(t, c, topicReads, int32(n/50%2), nil, values(vs...)...)
			n += 50
		}
		arrive := func() {
			t.Helper()
			produce()
			streamtest.Eventually(t, patience, fmt.Sprintf("%d records", n), func() bool { return ty.count() == n })
		}
		arrive()
		for _, o := range []outage{down, hung} {
			o.begin(way)
			time.Sleep(600 * time.Millisecond)
			produce()
			way.Heal()
			arrive()
		}
		m.stop(t)
		ty.check(t, "v", n)
		if d := way.Accepted(); d > 150 {
			t.Errorf("%d connections were tried, want few: a storm", d)
		}
	})
}

// Records that retention took before they were read are counted; reading goes on behind them.
func TestSkipped(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, nil, values(numbered("v", 30)...)...)
		cfg := SourceConfig{Group: c.prefix + "g", MaxRecords: 10, MaxBytes: 1 << 10}
		if got := consumeN(t, c.Source(cfg), 10); len(got) != 10 {
			t.Fatalf("%d records, want 10", len(got))
		}
		deleteRecords(t, c, 25)
		var mu sync.Mutex
		var skipped int64
		var got []string
		s := c.Source(cfg)
		m := start(t, s, func(ctx context.Context, p stream.Partition) error {
			return consume(ctx, p, func(b *stream.Batch) {
				mu.Lock()
				defer mu.Unlock()
				skipped += b.Skipped
				for _, r := range b.Records {
					got = append(got, fmt.Sprint(r.Offset, " ", string(r.Value)))
				}
			})
		})
		streamtest.Eventually(t, patience, "the rest", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) == 5 })
		m.stop(t)
		if st := s.Stats(); skipped != 15 || st.Skipped != 15 || st.Rewinds != 0 {
			t.Errorf("skipped %d, stats %+v, want 15", skipped, st)
		}
		if got[0] != "25 v-25" {
			t.Errorf("first is %q", got[0])
		}
	})
}

// Offsets missing in the middle of the partition are counted once, those of markers and those
// read before are not missing.
func TestJumps(t *testing.T) {
	c, err := Open(Config{Brokers: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := c.Source(SourceConfig{MaxRecords: 2})
	p := s.newPartition(&groupRun{s: s}, nil, kafkago.PartitionAssignment{Offset: 12})
	p.seek(12)
	var data []byte
	for _, tb := range []testBatch{
		{base: 10, values: numbered("a", 5)},                                // to 14
		{base: 15, control: true, values: []string{"marker"}},               // to 15
		{base: 16, values: numbered("b", 2)},                                // to 17
		{base: 25, codec: compress.Zstd, values: numbered("c", 3)},          // 7 missing
		{base: 28, values: numbered("d", 1)},                                // to 28
		{base: 30, control: true, values: []string{"marker after one gap"}}, // 1 missing
		{base: 31, values: numbered("e", 1)},
	} {
		data = append(data, tb.encode(t)...)
	}
	p.feed(data, false)
	var skipped, records int64
	for p.pending() {
		var b stream.Batch
		p.recycle()
		p.fill(&b)
		skipped += b.Skipped
		records += int64(len(b.Records))
	}
	if st := s.Stats(); skipped != 8 || st.Skipped != 8 || records != 10 || p.next != 32 {
		t.Errorf("skipped %d, %d records, next %d, stats %+v; want 8, 10, 32", skipped, records, p.next, st)
	}
}

// TestBatchesAdapt: a read that comes alone is a batch of one, at once; behind a backlog
// batches are as large as allowed; and while a batch is in hand no other is asked for,
// however much waits.
func TestBatchesAdapt(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		const backlog, most = 20_000, 1000
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		s := c.Source(SourceConfig{Group: c.prefix + "g", MaxRecords: most})
		type seen struct {
			n  int
			at time.Time
		}
		var mu sync.Mutex
		var batches []seen
		hold := make(chan struct{})
		held := make(chan struct{})
		var first sync.Once
		total := func() (n int) {
			mu.Lock()
			defer mu.Unlock()
			for _, b := range batches {
				n += b.n
			}
			return n
		}
		m := start(t, s, func(ctx context.Context, p stream.Partition) error {
			return consume(ctx, p, func(b *stream.Batch) {
				n := len(b.Records)
				if n == 0 {
					return
				}
				mu.Lock()
				batches = append(batches, seen{n, time.Now()})
				mu.Unlock()
				if n > 1 {
					first.Do(func() { close(held); <-hold })
				}
			})
		})
		put(t, c, topicReads, 0, nil, values("warm")...)
		streamtest.Eventually(t, patience, "the first read", func() bool { return total() == 1 })
		var slowest time.Duration
		for i := range 5 {
			began := time.Now()
			put(t, c, topicReads, 0, nil, values("alone")...)
			streamtest.Eventually(t, patience, "a read that comes alone", func() bool { return total() == i+2 })
			mu.Lock()
			last := batches[len(batches)-1]
			mu.Unlock()
			if last.n != 1 {
				t.Errorf("a read that came alone is in a batch of %d", last.n)
			}
			slowest = max(slowest, last.at.Sub(began))
		}
		if slowest > 2*time.Second {
			t.Errorf("a read that came alone took %v", slowest)
		}
		put(t, c, topicReads, 0, []kgo.Opt{kgo.MaxBufferedRecords(backlog + 1)}, values(numbered("v", backlog)...)...)
		<-held
		before, fetches := total(), s.Stats().Fetches
		time.Sleep(500 * time.Millisecond)
		if got := total(); got != before || got > 6+most {
			t.Errorf("%d reads were handed on while a batch was in hand", got-before)
		}
		if got := s.Stats(); got.Fetches != fetches {
			t.Errorf("%d fetches while a batch was in hand", got.Fetches-fetches)
		}
		close(hold)
		streamtest.Eventually(t, patience, "the backlog", func() bool { return total() == backlog+6 })
		m.stop(t)
		mu.Lock()
		defer mu.Unlock()
		large := 0
		for _, b := range batches {
			if b.n > most {
				t.Errorf("a batch of %d", b.n)
			}
			if b.n == most {
				large++
			}
		}
		t.Logf("alone: at most %v; backlog: %d batches, %d of them full", slowest, len(batches)-6, large)
		if large < backlog/most/2 {
			t.Errorf("only %d of %d batches are full behind a backlog", large, len(batches)-6)
		}
	})
}

// deleteRecords removes the records of partition 0 of reads below an offset.
func deleteRecords(t *testing.T, c *Cluster, offset int64) {
	t.Helper()
	cl := client(t, c)
	defer cl.Close()
	req := kmsg.NewPtrDeleteRecordsRequest()
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = c.topic(topicReads)
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Offset = offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	req.TimeoutMillis = 5000
	if _, err := req.RequestWith(t.Context(), cl); err != nil {
		t.Fatalf("DeleteRecords: %v", err)
	}
	streamtest.Eventually(t, patience, "the records to be deleted", func() bool {
		first, _, err := c.bounds(t.Context(), c.topic(topicReads), 0)
		return err == nil && first == offset
	})
}

// A topic that was made anew is read from its beginning, whatever was committed for the old one.
func TestRewound(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		specs := topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, nil, values(numbered("old", 40)...)...)
		cfg := SourceConfig{Group: c.prefix + "g"}
		consumeN(t, c.Source(cfg), 40)
		if _, err := c.client.DeleteTopics(t.Context(), &kafkago.DeleteTopicsRequest{Topics: []string{c.topic(topicReads)}}); err != nil {
			t.Fatal(err)
		}
		streamtest.Eventually(t, patience, "the topic to be made anew", func() bool {
			rs, err := c.ApplyTopics(t.Context(), specs[:1])
			return err == nil && rs[0].Action == ActionCreated
		})
		put(t, c, topicReads, 0, nil, values(numbered("new", 7)...)...)
		ty := newTally()
		s := c.Source(cfg)
		m := start(t, s, func(ctx context.Context, p stream.Partition) error { return consume(ctx, p, ty.add) })
		streamtest.Eventually(t, patience, "the new records", func() bool { return ty.count() == 7 })
		m.stop(t)
		ty.check(t, "new", 7)
		if b.name == "kafka" {
			return // a deleted topic's offsets go with it
		}
		if st := s.Stats(); st.Rewinds > 1 || st.Skipped != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// relocate tells the cases apart; a rewind under a running consume ends it first.
func TestRelocate(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, nil, values(numbered("v", 10)...)...)
		s := c.Source(SourceConfig{MaxWait: 10 * time.Millisecond})
		p := s.newPartition(&groupRun{s: s}, nil, kafkago.PartitionAssignment{Offset: 1000})
		var batch stream.Batch
		fetch := func() error {
			t.Helper()
			err := p.Fetch(t.Context(), &batch)
			for err == nil && len(batch.Records) == 0 {
				err = p.Fetch(t.Context(), &batch)
			}
			return err
		}
		p.seek(p.start)
		if err := fetch(); err != nil || batch.Next != 10 || batch.Records[0].Offset != 0 || batch.Skipped != 0 {
			t.Fatalf("from offset 1000 of 10: %v, %+v", err, batch)
		}
		p.seek(500) // the log was cut short behind our back
		if err := fetch(); !errors.Is(err, ErrRewound) || p.again != 0 {
			t.Errorf("got %v, again at %d, want ErrRewound and 0", err, p.again)
		}
		p.seek(p.start)
		p.handed = false
		if err := fetch(); err != nil || batch.Next != 10 {
			t.Errorf("again: %v, next %d", err, batch.Next)
		}
		if st := s.Stats(); st.Rewinds != 2 || st.Skipped != 0 {
			t.Errorf("stats %+v", st)
		}
	})
}

// Transaction markers are no reads; Next moves over them. Aborted reads are handed on: a
// duplicate rather than a miss.
func TestTransactions(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		cl := client(t, c, kgo.TransactionalID(c.prefix+"tx"), kgo.DefaultProduceTopic(c.topic(topicReads)))
		defer cl.Close()
		for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
			if err := cl.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := cl.ProduceSync(t.Context(), values(numbered(fmt.Sprint("tx", i), 3)...)...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := cl.EndTransaction(t.Context(), end); err != nil {
				t.Fatal(err)
			}
		}
		cfg := SourceConfig{Group: c.prefix + "g"}
		s := c.Source(cfg)
		ty := newTally()
		m := start(t, s, func(ctx context.Context, p stream.Partition) error {
			return consume(ctx, p, func(b *stream.Batch) {
				ty.add(b)
				for _, r := range b.Records {
					if !strings.HasPrefix(string(r.Value), "tx") {
						t.Errorf("a record %q at %d", r.Value, r.Offset)
					}
				}
			})
		})
		streamtest.Eventually(t, patience, "the commit behind the last marker", func() bool { return committed(t, c, cfg.Group, 1)[0] == 12 })
		m.stop(t)
		if n := ty.count(); n != 9 {
			t.Errorf("%d records, want 9", n)
		}
		if st := s.Stats(); st.Markers != 3 {
			t.Errorf("%d markers, want 3", st.Markers)
		}
	})
}

// Records and batches that are too large are handed on as such; the partition goes on.
func TestTooLarge(t *testing.T) {
	alone(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		bomb := strings.Repeat("{", 30<<20)
		put(t, c, topicReads, 0, nil, values("before")...)
		put(t, c, topicReads, 0, []kgo.Opt{kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(64 << 20),
			kgo.BrokerMaxWriteBytes(100 << 20)}, values(bomb)...)
		put(t, c, topicReads, 0, []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression())}, values(strings.Repeat("b", 900_000), "small", "")...)
		put(t, c, topicReads, 0, nil, values("behind")...)

		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s := c.Source(SourceConfig{Group: c.prefix + "g", MaxBatchBytes: 4 << 20})
		var mu sync.Mutex
		var got []stream.Record
		m := start(t, s, func(ctx context.Context, p stream.Partition) error {
			return consume(ctx, p, func(b *stream.Batch) {
				mu.Lock()
				defer mu.Unlock()
				for _, r := range b.Records {
					r.Value = bytes.Clone(r.Value)
					got = append(got, r)
				}
			})
		})
		streamtest.Eventually(t, patience, "six records", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) >= 6 })
		m.stop(t)
		runtime.ReadMemStats(&after)
		if took := (after.TotalAlloc - before.TotalAlloc) >> 20; took > 40 {
			t.Errorf("it took %d MiB of memory to refuse a bomb of 30 MiB at a limit of 4", took)
		}
		large := []bool{false, true, true, false, false, false}
		for i, r := range got {
			if r.Offset != int64(i) || r.TooLarge != large[i] {
				t.Errorf("record %d: offset %d, too large %v, want %v", i, r.Offset, r.TooLarge, large[i])
			}
			if len(r.Value) > headBytes {
				t.Errorf("record %d: %d bytes", i, len(r.Value))
			}
		}
		if string(got[0].Value) != "before" || string(got[3].Value) != "small" || len(got[4].Value) != 0 || string(got[5].Value) != "behind" {
			t.Errorf("values %q %q %q %q", got[0].Value, got[3].Value, got[4].Value, got[5].Value)
		}
		if st := s.Stats(); st.TooLarge != 2 || st.Damaged != 1 {
			t.Errorf("stats %+v, want 2 too large, 1 of them not to be had", st)
		}
	})
}

// A batch that arrives damaged is read again. One that stays so is passed, offset by offset
// since its header may lie, and the partition goes on.
func TestDamagedReads(t *testing.T) {
	for _, tt := range []struct {
		name  string
		times int
		lost  int
	}{{"on the way", 2, 0}, {"on the disk", 1 << 30, 3}} {
		t.Run(tt.name, func(t *testing.T) {
			kf, err := kfake.NewCluster(kfake.NumBrokers(1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(kf.Close)
			c := open(t, backend{addr: kf.ListenAddrs()[0]}, Config{})
			topics(t, c, TopicsConfig{ReadsPartitions: 1})
			put(t, c, topicReads, 0, nil, values(numbered("v", 3)...)...)
			put(t, c, topicReads, 0, nil, values("behind")...)
			bad := testBatch{values: numbered("v", 3)}.encode(t)
			bad[len(bad)-1] ^= 1
			var mu sync.Mutex
			asked := 0
			answerFetch(kf, func(offset int64) ([]byte, int64, bool) {
				mu.Lock()
				defer mu.Unlock()
				asked++
				return bad, 4, offset < 3 && asked <= tt.times
			})
			s := c.Source(SourceConfig{MaxWait: 10 * time.Millisecond})
			p := s.newPartition(&groupRun{s: s}, nil, kafkago.PartitionAssignment{Offset: 0})
			p.seek(0)
			var batch stream.Batch
			var got []string
			for batch.Next < 4 {
				if err := p.Fetch(t.Context(), &batch); err != nil {
					t.Fatal(err)
				}
				for _, r := range batch.Records {
					if r.Offset != int64(len(got)) {
						t.Errorf("offset %d after %d records", r.Offset, len(got))
					}
					if r.Value[0] == 0 {
						r.Value = []byte("lost")
					}
					got = append(got, string(r.Value))
				}
			}
			want := append(numbered("v", 3), "behind")
			for i := range tt.lost {
				want[i] = "lost"
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if st := s.Stats(); st.Damaged != int64(tt.lost) {
				t.Errorf("%d damaged, want %d", st.Damaged, tt.lost)
			}
		})
	}
}

// Every codec that producers may use arrives.
func TestCompressed(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		codecs := []kgo.CompressionCodec{kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(), kgo.NoCompression()}
		for i, codec := range codecs {
			put(t, c, topicReads, 0, []kgo.Opt{kgo.ProducerBatchCompression(codec)}, values(numbered("v", 1000*(i+1))[1000*i:]...)...)
		}
		got := consumeN(t, c.Source(SourceConfig{Group: c.prefix + "g", MaxRecords: 300, MaxBytes: 10_000}), 5000)
		for i, v := range got {
			if want := fmt.Sprint("v-", i); v != want {
				t.Fatalf("value %d is %q, want %q", i, v, want)
			}
		}
	})
}

// A batch is bounded, and does not ask the broker again for what it has not handed on yet.
func TestFetchBounds(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, nil, values(numbered("v", 1000)...)...)
		s := c.Source(SourceConfig{MaxRecords: 64, MaxWait: 300 * time.Millisecond})
		p := s.newPartition(&groupRun{s: s}, nil, kafkago.PartitionAssignment{Offset: 0})
		p.seek(0)
		var batch stream.Batch
		for next := int64(0); next < 1000; {
			if err := p.Fetch(t.Context(), &batch); err != nil {
				t.Fatal(err)
			}
			if n := len(batch.Records); n > 64 || batch.HighWater != 1000 || batch.Next != next+int64(n) {
				t.Fatalf("%d records, next %d of %d after %d", n, batch.Next, batch.HighWater, next)
			}
			next = batch.Next
		}
		if st := s.Stats(); st.Fetches > 3 {
			t.Errorf("%d fetches for one answer", st.Fetches)
		}
		began := time.Now()
		if err := p.Fetch(t.Context(), &batch); err != nil || len(batch.Records) != 0 || batch.Next != 1000 {
			t.Errorf("at the end: %v, %d records, next %d", err, len(batch.Records), batch.Next)
		}
		if took := time.Since(began); took < 250*time.Millisecond || took > 3*time.Second {
			t.Errorf("at the end it waited %v, want 300 ms", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began = time.Now()
		if err := p.Fetch(ctx, &batch); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 250*time.Millisecond {
			t.Errorf("told to stop: %v after %v", err, time.Since(began))
		}
	})
}

// In steady state a record costs no allocation: what a request costs is shared by its records.
func TestFetchAllocations(t *testing.T) {
	alone(t, func(t *testing.T, b backend) {
		const n = 20_000
		c := open(t, b, Config{})
		topics(t, c, TopicsConfig{ReadsPartitions: 1})
		put(t, c, topicReads, 0, []kgo.Opt{kgo.MaxBufferedRecords(n + 1)}, values(numbered(strings.Repeat("v", 80), n)...)...)
		s := c.Source(SourceConfig{})
		p := s.newPartition(&groupRun{s: s}, nil, kafkago.PartitionAssignment{Offset: 0})
		var batch stream.Batch
		round := func() {
			p.seek(0)
			for p.next < n {
				if err := p.Fetch(context.Background(), &batch); err != nil {
					t.Error(err)
					return
				}
			}
		}
		round()
		allocs := testing.AllocsPerRun(10, round)
		t.Logf("%.0f allocations for %d records: %.4f each", allocs, n, allocs/n)
		// kfake runs in this process and allocates too.
		if limit := map[string]float64{"kfake": 0.5, "kafka": 0.02}[b.name]; allocs/n > limit {
			t.Errorf("%.4f allocations per record, want at most %v", allocs/n, limit)
		}
	})
}

func TestRunRefuses(t *testing.T) {
	b := fake(t)
	c := open(t, b, Config{Timeout: time.Second})
	for _, cfg := range []SourceConfig{
		{MaxRecords: -1}, {MaxBytes: -1}, {MaxWait: -1}, {MaxRecordBytes: -1}, {MaxBatchBytes: 10},
		{SessionTimeout: time.Second}, {RebalanceTimeout: time.Millisecond},
	} {
		if err := c.Source(cfg).Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "SourceConfig.") {
			t.Errorf("%+v: %v, want an error that names the field", cfg, err)
		}
	}
	began := time.Now()
	err := c.Source(SourceConfig{}).Run(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "vigie topics apply") {
		t.Errorf("without a topic: %v, want what to do", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if n, err := c.partitions(t.Context(), c.topic(topicReads)); err == nil {
		t.Errorf("the topic was made, with %d partitions", n)
	}
}
