package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/metadata"
	produceapi "github.com/segmentio/kafka-go/protocol/produce"
	"golang.org/x/sync/errgroup"
)

// writeBytes bounds a record batch that is written. Every topic takes it: it is below the
// brokers' own default for max.message.bytes, 1,048,588.
const writeBytes = 1_000_000

// message is one record to be written.
type message struct {
	key, value []byte // nil for null
	headers    []kafkago.Header
}

// size bounds the bytes of m in a batch.
func (m *message) size() int {
	n := len(m.key) + len(m.value) + 40
	for _, h := range m.headers {
		n += len(h.Key) + len(h.Value) + 10
	}
	return n
}

// take returns how many of the first messages fit into one batch, at least one.
func take(ms []message) int {
	bytes := 0
	for i := range ms {
		if bytes += ms[i].size(); bytes > writeBytes && i > 0 {
			return i
		}
	}
	return len(ms)
}

// tryTimeout bounds the first try of a write; each further one may take twice as long, for
// networks on which a batch takes longer, but no more than half of Config.Timeout. It is
// well above what acknowledging takes while all is well (milliseconds; a second on a busy
// broker), so that it does not repeat what is only slow, and as much as a connection which
// has gone dead without a word should cost. An election is not waited for in this way: see
// askAfter.
const tryTimeout = 2 * time.Second

// askAfter is how long a write waits for its leader before other brokers are asked who leads,
// and how often they are asked at most. It is what a stopped leader costs on top of the election.
const askAfter = 500 * time.Millisecond

// askTimeout bounds one such question; askOthers is how many brokers get it at a time.
const (
	askTimeout = time.Second
	askOthers  = 2
)

// errMoved says that a try was given up because its broker is the leader no more.
var errMoved = fmt.Errorf("the leader has not answered, and another has taken over: %w", kafkago.NotLeaderForPartition)

// producer writes to one topic. It may be used by several goroutines. Which brokers lead is
// known from the Transport, and better than that where a leader has failed to answer:
// kafka-go looks for itself every second or so, but may do so at the very broker that has
// stopped, and then waits for it as long as for connecting.
type producer struct {
	c     *Cluster
	topic string
	// first and ask are tryTimeout and askAfter, unless a test wants to see what happens
	// without them.
	first, ask time.Duration

	tries, asked atomic.Int64 // produce requests and questions made

	asking chan struct{} // has one element while others are asked
	last   time.Time     // when they were asked; owned by who has put it there

	mu    sync.Mutex
	known map[int32]leader // what other brokers said of partitions
}

// leader is what a broker has said of a partition.
type leader struct {
	id    int32 // -1 when the layout of the Transport agrees or has news since
	epoch int32 // grows with each election, so that who is behind the times is told
	old   int32 // what the layout said then
}

func (c *Cluster) producer(topic string) *producer {
	return &producer{
		c: c, topic: topic, first: min(tryTimeout, c.timeout/2), ask: askAfter,
		asking: make(chan struct{}, 1), known: make(map[int32]leader),
	}
}

// produce writes messages as one record batch, which Kafka stores whole or not at all, and
// returns the offset of the first. It returns once all in-sync replicas have them. It tries
// again what may pass, until ctx ends or Config.Timeout is over; after such an error, and
// after a retry, the batch may be stored once more than the answer says. Tries tells how many
// there were: after more than one, or an error, kafka-go may still read ms.
func (p *producer) produce(ctx context.Context, partition int, ms []message) (base int64, tries int, err error) {
	c := p.c
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	limit := p.first
	var last error
	for n := 1; ; n++ {
		req := &produceRequest{p: p, partition: int32(partition), ms: ms}
		base, err := p.try(ctx, limit, req)
		if err == nil {
			return base, n, nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // what ended the waiting says less than what made it wait
		}
		again := errors.Is(err, errMoved)
		if !again && transient(err) {
			p.askWho(ctx, req.broker.Load())
			again = c.sleep(ctx, backoff(n, 500*time.Millisecond))
		}
		if !again || ctx.Err() != nil {
			return 0, n, fmt.Errorf("write %d records to %s/%d: %w", len(ms), p.topic, partition, c.explain(p.topic, last))
		}
		limit = max(p.first, min(2*limit, c.timeout/2))
	}
}

// try makes one try, and gives it up when its broker has not answered for a while and another
// one leads. Every try has a connection to itself until its answer is here; that of a try
// which was given up is closed at the end of limit (one that was not made yet, when the time
// for connecting is over), so that those to a broker that has stopped stay few.
func (p *producer) try(ctx context.Context, limit time.Duration, req *produceRequest) (int64, error) {
	p.tries.Add(1)
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// The broker may tell that replicas are missing before the patience is over.
	req.wait = limit * 3 / 4
	watched := make(chan struct{})
	watch := time.AfterFunc(p.ask, func() {
		defer close(watched)
		for {
			to := req.broker.Load()
			if now := p.askWho(ctx, to)[req.partition]; to >= 0 && now >= 0 && now != to {
				cancel(errMoved)
				return
			}
			if !p.c.sleep(ctx, p.ask) {
				return
			}
		}
	})
	res, err := p.c.transport.RoundTrip(ctx, p.c.client.Addr, req)
	if err != nil && errors.Is(context.Cause(ctx), errMoved) {
		err = errMoved
	}
	if !watch.Stop() {
		cancel(nil)
		<-watched
	}
	if err != nil {
		return 0, err
	}
	answer, _ := res.(*produceapi.Response)
	if answer == nil || len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("%w: not of one partition", errAnswer)
	}
	part := &answer.Topics[0].Partitions[0]
	if part.ErrorCode != 0 {
		return 0, kafkago.Error(part.ErrorCode)
	}
	return part.BaseOffset, nil
}

// produceRequest is one try. It goes to the leader that the producer knows. It must not be
// used again: after a try that was given up the connection may still read it.
type produceRequest struct {
	p         *producer
	partition int32
	ms        []message
	wait      time.Duration // that the broker may wait for replicas
	broker    atomic.Int32  // to which it goes, once Broker was asked
	version   int16
}

// ApiKey says that it is a Produce request.
func (r *produceRequest) ApiKey() protocol.ApiKey { return protocol.Produce }

// Broker is the leader of the partition.
func (r *produceRequest) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	r.broker.Store(-1)
	none := protocol.Broker{ID: -1}
	t, ok := cluster.Topics[r.p.topic]
	if !ok || t.Error == int16(kafkago.UnknownTopicOrPartition) {
		return none, protocol.NewErrNoTopic(r.p.topic)
	}
	part, ok := t.Partitions[r.partition]
	if !ok {
		return none, protocol.NewErrNoPartition(r.p.topic, r.partition)
	}
	b, ok := cluster.Brokers[r.p.leads(r.partition, part.Leader)]
	if !ok {
		return none, protocol.NewErrNoLeader(r.p.topic, r.partition)
	}
	r.broker.Store(b.ID)
	return b, nil
}

// Required makes kafka-go call RawExchange.
func (r *produceRequest) Required(versions map[protocol.ApiKey]int16) bool {
	r.version = versions[protocol.Produce]
	return true
}

// RawExchange writes the request and reads the answer.
func (r *produceRequest) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	req := &produceapi.Request{
		Acks: int16(kafkago.RequireAll), Timeout: int32(r.wait.Milliseconds()),
		Topics: []produceapi.RequestTopic{{Topic: r.p.topic, Partitions: []produceapi.RequestPartition{{
			Partition: r.partition, RecordSet: protocol.RecordSet{Records: &messageReader{ms: r.ms}},
		}}}},
	}
	req.Prepare(r.version)
	return protocol.RoundTrip(rw, r.version, 1, r.p.c.clientID, req)
}

// leads is the leader of a partition, given what the layout says.
func (p *producer) leads(partition, layout int32) int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, ok := p.known[partition]
	if !ok || l.id < 0 {
		return layout
	}
	if l.old != layout { // it has changed since, so that it is the newer
		l.id = -1
		p.known[partition] = l
		return layout
	}
	return l.id
}

// askWho asks brokers other than one for the leaders of all partitions, unless somebody has
// done so a moment ago, and returns them as they are known then.
func (p *producer) askWho(ctx context.Context, silent int32) map[int32]int32 {
	// From the cache of the Transport.
	layout, err := p.c.client.Metadata(ctx, &kafkago.MetadataRequest{Topics: []string{p.topic}})
	if err != nil || len(layout.Topics) == 0 {
		return nil
	}
	now := make(map[int32]int32)
	for _, part := range layout.Topics[0].Partitions {
		now[int32(part.ID)] = -1
		if part.Leader.Host != "" {
			now[int32(part.ID)] = int32(part.Leader.ID)
		}
	}
	select {
	case p.asking <- struct{}{}:
	case <-ctx.Done():
		return nil
	}
	if time.Since(p.last) >= p.ask {
		p.last = time.Now()
		for _, l := range p.answers(ctx, layout.Brokers, silent) {
			p.learn(l, now)
		}
	}
	<-p.asking
	for partition, id := range now {
		now[partition] = p.leads(partition, id)
	}
	return now
}

// learn takes an answer for the newer, unless it is of an earlier election than one before.
func (p *producer) learn(answer *metadata.ResponsePartition, layout map[int32]int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, ok := p.known[answer.PartitionIndex]
	if answer.LeaderID < 0 || ok && answer.LeaderEpoch < before.epoch {
		return
	}
	l := leader{id: answer.LeaderID, epoch: answer.LeaderEpoch, old: layout[answer.PartitionIndex]}
	if l.id == l.old {
		l.id = -1
	}
	p.known[answer.PartitionIndex] = l
}

// answers asks some of the brokers and returns the first answer.
func (p *producer) answers(ctx context.Context, brokers []kafkago.Broker, silent int32) []*metadata.ResponsePartition {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answers := make(chan *leaderQuestion, askOthers)
	n := 0
	for _, i := range rand.Perm(len(brokers)) {
		if id := int32(brokers[i].ID); id != silent && n < askOthers {
			n++
			go func() { // ends with ctx at the latest
				q := &leaderQuestion{clientID: p.c.clientID, topic: p.topic, broker: id}
				if _, err := p.c.transport.RoundTrip(ctx, p.c.client.Addr, q); err != nil {
					q = nil
				}
				answers <- q
			}()
		}
	}
	p.asked.Add(int64(n))
	var parts []*metadata.ResponsePartition
	for range n {
		q := <-answers
		if q == nil || parts != nil {
			continue
		}
		for i := range q.answer.Topics {
			if t := &q.answer.Topics[i]; t.Name == p.topic && t.ErrorCode == 0 {
				for j := range t.Partitions {
					parts = append(parts, &t.Partitions[j])
				}
			}
		}
		if parts != nil {
			cancel()
		}
	}
	return parts
}

// leaderQuestion asks one broker what it knows of a topic. (A Metadata request that kafka-go
// knows as such is answered from its cache.)
type leaderQuestion struct {
	clientID, topic string
	broker          int32
	version         int16
	answer          *metadata.Response
}

// ApiKey says that it is a Metadata request, and its answer too.
func (q *leaderQuestion) ApiKey() protocol.ApiKey { return protocol.Metadata }

// Broker is the one to be asked.
func (q *leaderQuestion) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	if b, ok := cluster.Brokers[q.broker]; ok {
		return b, nil
	}
	return protocol.Broker{ID: -1}, kafkago.BrokerNotAvailable
}

// Required makes kafka-go call RawExchange.
func (q *leaderQuestion) Required(versions map[protocol.ApiKey]int16) bool {
	q.version = versions[protocol.Metadata]
	return true
}

// RawExchange writes the request and reads the answer.
func (q *leaderQuestion) RawExchange(rw io.ReadWriter) (protocol.Message, error) {
	m, err := protocol.RoundTrip(rw, q.version, 1, q.clientID, &metadata.Request{TopicNames: []string{q.topic}})
	if err != nil {
		return nil, err
	}
	q.answer = m.(*metadata.Response)
	return q, nil
}

// all writes messages in order, in as many batches as it takes.
func (p *producer) all(ctx context.Context, partition int, ms []message) error {
	for len(ms) > 0 {
		n := take(ms)
		if _, err := p.split(ctx, partition, ms[:n]); err != nil {
			return err
		}
		ms = ms[n:]
	}
	return nil
}

// split writes one batch, or two halves of it when the topic takes smaller ones only. It
// returns how many tries the batch took that took most.
func (p *producer) split(ctx context.Context, partition int, ms []message) (tries int, err error) {
	_, tries, err = p.produce(ctx, partition, ms)
	tooLarge := errors.Is(err, kafkago.MessageSizeTooLarge) || errors.Is(err, kafkago.RecordListTooLarge)
	if !tooLarge {
		return tries, err
	}
	if len(ms) == 1 {
		return tries, fmt.Errorf("%w: %w", ErrTooLarge, err)
	}
	half := len(ms) / 2
	for _, part := range [][]message{ms[:half], ms[half:]} {
		n, err := p.split(ctx, partition, part)
		if tries = max(tries, n); err != nil {
			return tries, err
		}
	}
	return tries, nil
}

// keyed writes messages to the partitions of their keys, in order within each, and returns
// once all are acknowledged.
func (p *producer) keyed(ctx context.Context, ms []message) error {
	n, err := p.c.waitPartitions(ctx, p.topic)
	if err != nil {
		return err
	}
	if n == 1 {
		return p.all(ctx, 0, ms)
	}
	byPartition := make(map[int][]message)
	for _, m := range ms {
		to := partitionOf(m.key, n)
		byPartition[to] = append(byPartition[to], m)
	}
	var g errgroup.Group
	for to, ms := range byPartition {
		g.Go(func() error { return p.all(ctx, to, ms) })
	}
	return g.Wait()
}

// waitPartitions is the number of partitions of a topic; it waits for brokers as produce does.
func (c *Cluster) waitPartitions(ctx context.Context, topic string) (int, error) {
	n, err := c.partitions(ctx, topic)
	if err == nil {
		return n, nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for try := 1; ; try++ {
		if !transient(err) || !c.sleep(ctx, backoff(try, 500*time.Millisecond)) {
			return 0, fmt.Errorf("look up %s: %w", topic, c.explain(topic, err))
		}
		again := err
		if n, err = c.partitions(ctx, topic); err == nil {
			return n, nil
		}
		if ctx.Err() != nil {
			err = again
		}
	}
}

// partitionOf is the partition of a key among n, as Java's producer has it: murmur2.
func partitionOf(key []byte, n int) int {
	return kafkago.Murmur2Balancer{Consistent: true}.Balance(kafkago.Message{Key: key}, numbers(n)...)
}

var firstNumbers = func() (ns [256]int) {
	for i := range ns {
		ns[i] = i
	}
	return ns
}()

// numbers is 0 to n-1.
func numbers(n int) []int {
	if n <= len(firstNumbers) {
		return firstNumbers[:n]
	}
	ns := make([]int, n)
	for i := range ns {
		ns[i] = i
	}
	return ns
}

// messageReader hands messages to kafka-go's encoder without allocating for each.
type messageReader struct {
	ms         []message
	record     kafkago.Record
	key, value payload
}

// ReadRecord returns the next message, io.EOF after the last.
func (r *messageReader) ReadRecord() (*kafkago.Record, error) {
	if len(r.ms) == 0 {
		return nil, io.EOF
	}
	m := &r.ms[0]
	r.ms = r.ms[1:]
	r.record = kafkago.Record{Headers: m.headers}
	if m.key != nil {
		r.key.Reset(m.key)
		r.record.Key = &r.key
	}
	if m.value != nil {
		r.value.Reset(m.value)
		r.record.Value = &r.value
	}
	return &r.record, nil
}

// payload is a key or a value for kafka-go.
type payload struct{ bytes.Reader }

func (*payload) Close() error { return nil }
