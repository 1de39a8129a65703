package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	kafkago "github.com/segmentio/kafka-go"
)

const day = 24 * time.Hour

// The longest times that French law allows, from its code of internal security (CSI).
const (
	// MaxReadsRetention is for reads without a hit, kept only to permit the comparison:
	// CSI L233-2, 15 days at most.
	MaxReadsRetention = 15 * day
	// MaxHitsRetention is for reads with a hit: CSI L233-2, one month, taken as thirty days.
	MaxHitsRetention = 30 * day
)

// retentionCheck is how late a broker may look for old segments: log.retention.check.interval.ms.
const retentionCheck = 5 * time.Minute

// TopicsConfig says what Topics are to be like. Retentions bound the age that a record may
// reach, the time that a broker takes to remove it included. The zero value is good for a
// national platform.
type TopicsConfig struct {
	Prefix string // default DefaultPrefix
	// ReadsPartitions bounds how many goroutines can match at the same time. Default 8. To
	// raise it later moves sensors to other partitions: see ApplyTopics.
	ReadsPartitions int
	// HitsPartitions is for hits. Default 4.
	HitsPartitions int
	// Replication is the number of copies of each partition. With 0 it is 3, or the number of
	// brokers when there are fewer. Writes need all but one of them, if there is more than one.
	Replication int

	ReadsRetention  time.Duration // reads and their images; default 72 h, at most MaxReadsRetention
	HitsRetention   time.Duration // default and at most MaxHitsRetention
	DeadRetention   time.Duration // dead letters hold reads; default as reads, at most MaxReadsRetention
	AuditRetention  time.Duration // default 3 years; less than 0 keeps the audit trail for good
	MaxMessageBytes int           // of a record batch of reads; default 1 MiB
	MaxImageBytes   int           // of a picture; default 4 MiB
}

// TopicSpec is a topic as it should be.
type TopicSpec struct {
	Name        string // with the prefix
	Partitions  int
	Replication int               // 0: 3, or the number of brokers when there are fewer
	Configs     map[string]string // settings by Kafka's names; others are left as they are
}

// Topics returns the topics of Vigie, in the order of their use. It refuses a retention above
// the legal maximum, naming the law.
func Topics(cfg TopicsConfig) ([]TopicSpec, error) {
	def(&cfg.Prefix, DefaultPrefix)
	def(&cfg.ReadsPartitions, 8)
	def(&cfg.HitsPartitions, 4)
	def(&cfg.ReadsRetention, 72*time.Hour)
	def(&cfg.HitsRetention, MaxHitsRetention)
	def(&cfg.DeadRetention, cfg.ReadsRetention)
	def(&cfg.AuditRetention, 3*365*day)
	def(&cfg.MaxMessageBytes, 1<<20)
	def(&cfg.MaxImageBytes, 4<<20)
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf("kafka: topics: "+format, args...)) }
	if !topicPrefix.MatchString(cfg.Prefix) {
		refuse("prefix %q: use up to 200 of a-z A-Z 0-9 . _ -", cfg.Prefix)
	}
	for _, n := range []struct {
		name      string
		n, lo, hi int
	}{
		{"ReadsPartitions", cfg.ReadsPartitions, 1, 10_000},
		{"HitsPartitions", cfg.HitsPartitions, 1, 10_000},
		{"Replication", cfg.Replication, 0, 100},
		{"MaxMessageBytes", cfg.MaxMessageBytes, 128 << 10, 16 << 20},
		{"MaxImageBytes", cfg.MaxImageBytes, 64 << 10, 64 << 20},
	} {
		if n.n < n.lo || n.n > n.hi {
			refuse("%s %d: must be between %d and %d", n.name, n.n, n.lo, n.hi)
		}
	}
	const law = "Code de la sécurité intérieure, art. L233-2"
	for _, r := range []struct {
		name      string
		d, max    time.Duration
		law, what string
	}{
		{"reads_retention", cfg.ReadsRetention, MaxReadsRetention, law, "reads without a hit may be kept for 15 days at most"},
		{"hits_retention", cfg.HitsRetention, MaxHitsRetention, law, "reads with a hit may be kept for one month at most"},
		{"dead_retention", cfg.DeadRetention, MaxReadsRetention, law, "dead letters hold reads, which may be kept for 15 days at most"},
	} {
		switch {
		case r.name == "dead_retention" && r.d == cfg.ReadsRetention:
			// said of the reads already
		case r.d > r.max:
			refuse("%s %v is above the legal maximum of %v: %s (%s)", r.name, r.d, r.max, r.what, r.law)
		case r.d < time.Hour:
			refuse("%s %v: must be at least 1 h", r.name, r.d)
		}
	}
	if cfg.AuditRetention >= 0 && cfg.AuditRetention < day {
		refuse("audit_retention %v: must be at least 24 h, or less than 0 to keep it for good", cfg.AuditRetention)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}

	spec := func(name string, partitions int, configs ...map[string]string) TopicSpec {
		all := map[string]string{
			"unclean.leader.election.enable": "false", // a lost record would be a missed vehicle
		}
		for _, c := range configs {
			maps.Copy(all, c)
		}
		return TopicSpec{Name: cfg.Prefix + name, Partitions: partitions, Replication: cfg.Replication, Configs: all}
	}
	size := func(n int) map[string]string { return map[string]string{"max.message.bytes": strconv.Itoa(n)} }
	return []TopicSpec{
		spec(topicReads, cfg.ReadsPartitions, deleteAfter(cfg.ReadsRetention), size(cfg.MaxMessageBytes)),
		spec(topicControl, 1, map[string]string{
			"cleanup.policy": "compact",
			// Compacting compressed batches is where clients have been seen to stall.
			"compression.type":          "uncompressed",
			"min.cleanable.dirty.ratio": "0.1",
			"segment.ms":                ms(6 * time.Hour),
			// What was withdrawn is to be gone from the disks within two days, and a process
			// that was away for less than a day still learns of the withdrawal.
			"max.compaction.lag.ms": ms(day),
			"delete.retention.ms":   ms(tombstones),
			"max.message.bytes":     strconv.Itoa(1 << 20),
		}),
		spec(topicHits, cfg.HitsPartitions, deleteAfter(cfg.HitsRetention), size(1<<20)),
		spec(topicImages, cfg.ReadsPartitions, deleteAfter(cfg.ReadsRetention), size(cfg.MaxImageBytes)),
		spec(topicDead, 1, deleteAfter(cfg.DeadRetention), size(1<<20)),
		spec(topicAudit, 1, deleteAfter(cfg.AuditRetention), size(1<<20)),
	}, nil
}

// deleteAfter is the policy of a topic whose records are gone when they reach an age. Kafka
// removes a segment once its newest record is old enough, and looks for them now and then, so
// both times come off the setting. Ages go by the broker's clock: a sensor's that is wrong would
// keep records too long, or lose them at once.
func deleteAfter(age time.Duration) map[string]string {
	c := map[string]string{
		"cleanup.policy":         "delete",
		"compression.type":       "producer",
		"message.timestamp.type": "LogAppendTime",
		"retention.bytes":        "-1",
		"retention.ms":           "-1",
		"segment.ms":             ms(day),
	}
	if age > 0 {
		segment := min(max(age/24, 10*time.Minute), 6*time.Hour)
		c["segment.ms"] = ms(segment)
		c["retention.ms"] = ms(age - segment - retentionCheck)
	}
	return c
}

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// resolve fills in what depends on the number of brokers.
func (s TopicSpec) resolve(brokers int) TopicSpec {
	if s.Replication == 0 {
		s.Replication = min(3, max(1, brokers))
	}
	s.Configs = maps.Clone(s.Configs)
	if s.Configs == nil {
		s.Configs = make(map[string]string)
	}
	if _, ok := s.Configs["min.insync.replicas"]; !ok {
		s.Configs["min.insync.replicas"] = strconv.Itoa(max(1, s.Replication-1))
	}
	return s
}

// TopicResult says what ApplyTopics did about a topic.
type TopicResult struct {
	Name   string
	Action string // created, altered or unchanged
	Detail string // settings that were altered, or what it does not touch; may be empty
}

// Actions of a TopicResult.
const (
	ActionCreated   = "created"
	ActionAltered   = "altered"
	ActionUnchanged = "unchanged"
)

// ApplyTopics makes the topics that are missing and corrects the settings of the others. It
// never deletes a topic, and changes neither the number of partitions nor that of replicas: more
// partitions move sensors to other partitions, which breaks the order of their reads for a
// moment, so people decide when. Detail says so. A control topic of more than one partition is
// an error, since the order of changes would be lost. What was done before an error stands, and
// doing it again is safe.
func (c *Cluster) ApplyTopics(ctx context.Context, specs []TopicSpec) ([]TopicResult, error) {
	results, late, err := c.applyTopics(ctx, specs)
	if len(late) == 0 || err != nil {
		return results, err
	}
	// Some were there although they were not to be seen: another process has just made them.
	again, _, err := c.applyTopics(ctx, late)
	for _, r := range again {
		results[slices.IndexFunc(results, func(old TopicResult) bool { return old.Name == r.Name })] = r
	}
	return results, err
}

// applyTopics is one pass of ApplyTopics. late are the topics that another process makes at
// this moment.
func (c *Cluster) applyTopics(ctx context.Context, specs []TopicSpec) (results []TopicResult, late []TopicSpec, err error) {
	found, brokers, err := c.describe(ctx, specs)
	if err != nil {
		return nil, nil, fmt.Errorf("kafka: apply topics: %w", err)
	}
	results = make([]TopicResult, len(specs))
	var create []kafkago.TopicConfig
	var alter []kafkago.IncrementalAlterConfigsRequestResource
	var errs []error
	for i, s := range specs {
		s = s.resolve(brokers)
		results[i] = TopicResult{Name: s.Name, Action: ActionUnchanged}
		t := found[s.Name]
		if t == nil {
			results[i].Action = ActionCreated
			tc := kafkago.TopicConfig{Topic: s.Name, NumPartitions: s.Partitions, ReplicationFactor: s.Replication}
			for _, name := range slices.Sorted(maps.Keys(s.Configs)) {
				tc.ConfigEntries = append(tc.ConfigEntries, kafkago.ConfigEntry{ConfigName: name, ConfigValue: s.Configs[name]})
			}
			create = append(create, tc)
			continue
		}
		if err := c.oneControlPartition(s.Name, t.partitions); err != nil {
			errs = append(errs, err)
			continue
		}
		var details []string
		res := kafkago.IncrementalAlterConfigsRequestResource{ResourceType: kafkago.ResourceTypeTopic, ResourceName: s.Name}
		for _, d := range s.differences(t) {
			details = append(details, fmt.Sprintf("%s %s -> %s", d.Setting, d.Got, d.Want))
			res.Configs = append(res.Configs, kafkago.IncrementalAlterConfigsRequestConfig{
				Name: d.Setting, Value: d.Want, ConfigOperation: kafkago.ConfigOperationSet,
			})
		}
		if len(res.Configs) > 0 {
			results[i].Action = ActionAltered
			alter = append(alter, res)
		}
		if t.partitions != s.Partitions {
			details = append(details, fmt.Sprintf("left at %d partitions, not %d", t.partitions, s.Partitions))
		}
		if t.replication != s.Replication {
			details = append(details, fmt.Sprintf("left at %d replicas, not %d", t.replication, s.Replication))
		}
		results[i].Detail = strings.Join(details, ", ")
	}
	if len(create) > 0 {
		exist, err := c.create(ctx, create)
		errs = append(errs, err)
		for i, r := range results {
			if slices.Contains(exist, r.Name) {
				results[i].Action, late = ActionUnchanged, append(late, specs[i])
			}
		}
	}
	if len(alter) > 0 {
		errs = append(errs, c.alter(ctx, alter))
	}
	if err := errors.Join(errs...); err != nil {
		return results, late, fmt.Errorf("kafka: apply topics: %w", err)
	}
	if len(create)+len(alter) > 0 {
		c.settle(ctx, specs, brokers)
	}
	return results, late, nil
}

// create makes topics and returns the names of those that exist already.
func (c *Cluster) create(ctx context.Context, topics []kafkago.TopicConfig) (exist []string, err error) {
	res, err := c.client.CreateTopics(ctx, &kafkago.CreateTopicsRequest{Topics: topics})
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, t := range topics {
		err := res.Errors[t.Topic]
		switch {
		case err == nil:
		case errors.Is(err, kafkago.TopicAlreadyExists):
			exist = append(exist, t.Topic)
		default:
			errs = append(errs, fmt.Errorf("create %s: %w", t.Topic, c.explain(t.Topic, err)))
		}
	}
	return exist, errors.Join(errs...)
}

func (c *Cluster) alter(ctx context.Context, topics []kafkago.IncrementalAlterConfigsRequestResource) error {
	res, err := c.client.IncrementalAlterConfigs(ctx, &kafkago.IncrementalAlterConfigsRequest{Resources: topics})
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range res.Resources {
		if r.Error != nil {
			errs = append(errs, fmt.Errorf("alter %s: %w", r.ResourceName, c.explain(r.ResourceName, r.Error)))
		}
	}
	return errors.Join(errs...)
}

// settle waits a moment until the brokers show what the controller has accepted, so that a
// check right after does not find old settings.
func (c *Cluster) settle(ctx context.Context, specs []TopicSpec, brokers int) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	for n := 1; ; n++ {
		differ := 0
		found, _, err := c.describe(ctx, specs)
		for _, s := range specs {
			switch t := found[s.Name]; {
			case t == nil:
				differ++
			case c.oneControlPartition(s.Name, t.partitions) == nil:
				differ += len(s.resolve(brokers).differences(t))
			}
		}
		if err == nil && differ == 0 || !c.sleep(ctx, backoff(n, 200*time.Millisecond)) {
			return
		}
	}
}

func (c *Cluster) oneControlPartition(topic string, partitions int) error {
	if topic != c.topic(topicControl) || partitions == 1 {
		return nil
	}
	return fmt.Errorf("%s has %d partitions and must have 1, or changes lose their order: make it anew", topic, partitions)
}

// TopicProblem is something about a topic that is not as it should be.
type TopicProblem struct {
	Topic   string
	Setting string // topic, partitions, replication, in-sync replicas, leader, or Kafka's name of a setting
	Want    string
	Got     string
	Mend    string // what to do
}

// String is one line for people.
func (p TopicProblem) String() string {
	return fmt.Sprintf("%s: %s is %s, should be %s: %s", p.Topic, p.Setting, p.Got, p.Want, p.Mend)
}

// CheckTopics compares the topics with what they should be. It changes nothing.
func (c *Cluster) CheckTopics(ctx context.Context, specs []TopicSpec) ([]TopicProblem, error) {
	found, brokers, err := c.describe(ctx, specs)
	if err != nil {
		return nil, fmt.Errorf("kafka: check topics: %w", err)
	}
	const apply = "run `vigie topics apply`"
	var problems []TopicProblem
	for _, s := range specs {
		s = s.resolve(brokers)
		problem := func(setting, want, got, mend string) {
			problems = append(problems, TopicProblem{Topic: s.Name, Setting: setting, Want: want, Got: got, Mend: mend})
		}
		t := found[s.Name]
		if t == nil {
			problem("topic", "there", "missing", apply)
			continue
		}
		if err := c.oneControlPartition(s.Name, t.partitions); err != nil {
			problem("partitions", "1", strconv.Itoa(t.partitions), "changes lose their order: stop all processes, delete the topic and make it anew")
		} else if t.partitions < s.Partitions {
			problem("partitions", strconv.Itoa(s.Partitions), strconv.Itoa(t.partitions),
				"in a quiet hour, kafka-topics --alter --partitions "+strconv.Itoa(s.Partitions)+"; sensors move to other partitions")
		} else if t.partitions > s.Partitions {
			problem("partitions", strconv.Itoa(s.Partitions), strconv.Itoa(t.partitions), "a topic cannot lose partitions: correct the configuration")
		}
		if t.replication != s.Replication {
			problem("replication", strconv.Itoa(s.Replication), strconv.Itoa(t.replication), "kafka-reassign-partitions, or correct the configuration")
		}
		if t.leaderless > 0 {
			problem("leader", "in every partition", fmt.Sprintf("missing in %d", t.leaderless), "nothing can be written there: bring the brokers back")
		}
		if t.behind > 0 {
			problem("in-sync replicas", "all", fmt.Sprintf("too few in %d partitions", t.behind), "see whether all brokers run and keep up")
		}
		for _, d := range s.differences(t) {
			d.Mend = apply
			problems = append(problems, d)
		}
	}
	return problems, nil
}

// described is a topic as it is.
type described struct {
	partitions  int
	replication int // the fewest replicas of a partition
	behind      int // partitions with replicas that are not in sync
	leaderless  int
	configs     map[string]string
}

// differences are the settings that are not as they should be, by name, without Mend.
func (s TopicSpec) differences(t *described) (ds []TopicProblem) {
	for _, name := range slices.Sorted(maps.Keys(s.Configs)) {
		if got := t.configs[name]; got != s.Configs[name] {
			ds = append(ds, TopicProblem{Topic: s.Name, Setting: name, Want: s.Configs[name], Got: got})
		}
	}
	return ds
}

// describe looks at the topics that there are, by name, and counts the brokers.
func (c *Cluster) describe(ctx context.Context, specs []TopicSpec) (map[string]*described, int, error) {
	req := &kafkago.DescribeConfigsRequest{}
	for _, s := range specs {
		if !strings.HasPrefix(s.Name, c.prefix) {
			return nil, 0, fmt.Errorf("topic %q does not begin with the prefix %q of this connection", s.Name, c.prefix)
		}
		names := slices.Sorted(maps.Keys(s.Configs))
		if !slices.Contains(names, "min.insync.replicas") {
			names = append(names, "min.insync.replicas")
		}
		req.Resources = append(req.Resources, kafkago.DescribeConfigRequestResource{
			ResourceType: kafkago.ResourceTypeTopic, ResourceName: s.Name, ConfigNames: names,
		})
	}
	res, err := c.client.DescribeConfigs(ctx, req)
	// kafka-go says so of a broker that it is just about to know.
	for n := 1; errors.Is(err, kafkago.BrokerNotAvailable) && n < 10 && c.sleep(ctx, backoff(n, time.Second)); n++ {
		res, err = c.client.DescribeConfigs(ctx, req)
	}
	if err != nil {
		return nil, 0, explainDial(err, c.tls != nil, c.sasl != nil)
	}
	found := make(map[string]*described)
	for _, r := range res.Resources {
		switch {
		case missing(r.Error):
		case r.Error != nil:
			return nil, 0, fmt.Errorf("describe %s: %w", r.ResourceName, c.explain(r.ResourceName, r.Error))
		default:
			t := &described{configs: make(map[string]string)}
			for _, e := range r.ConfigEntries {
				t.configs[e.ConfigName] = e.ConfigValue
			}
			found[r.ResourceName] = t
		}
	}
	// The layout may be older than the topics: it is asked again until it knows them.
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	for n := 1; ; n++ {
		brokers, left, err := c.layout(ctx, found)
		if err == nil && !left {
			return found, brokers, nil
		}
		if err == nil {
			err = kafkago.LeaderNotAvailable
		}
		if !transient(err) || !c.sleep(ctx, backoff(n, 500*time.Millisecond)) {
			return nil, 0, fmt.Errorf("look up the topics: %w", c.explain("", err))
		}
	}
}

// layout fills in partitions and replicas, and reports whether a topic is not known yet.
func (c *Cluster) layout(ctx context.Context, found map[string]*described) (brokers int, left bool, err error) {
	names := slices.Sorted(maps.Keys(found))
	res, err := c.client.Metadata(ctx, &kafkago.MetadataRequest{Topics: names})
	if err != nil {
		return 0, false, err
	}
	for _, mt := range res.Topics {
		t := found[mt.Name]
		if t == nil {
			continue
		}
		if len(mt.Partitions) == 0 {
			left = true
			continue
		}
		*t = described{configs: t.configs, partitions: len(mt.Partitions), replication: len(mt.Partitions[0].Replicas)}
		for _, p := range mt.Partitions {
			t.replication = min(t.replication, len(p.Replicas))
			if len(p.Isr) < len(p.Replicas) {
				t.behind++
			}
			if p.Leader.Host == "" {
				t.leaderless++
			}
		}
	}
	return len(res.Brokers), left, nil
}
