package kafka

import (
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"vigie/stream/streamtest"
)

func TestTopicsRefuses(t *testing.T) {
	tests := []struct {
		name string
		cfg  TopicsConfig
		says []string
	}{
		{"reads too long", TopicsConfig{ReadsRetention: MaxReadsRetention + time.Second}, []string{"reads_retention", "15 days", "L233-2"}},
		{"hits too long", TopicsConfig{HitsRetention: 31 * day}, []string{"hits_retention", "one month", "L233-2"}},
		{"dead letters too long", TopicsConfig{DeadRetention: 16 * day}, []string{"dead_retention", "15 days", "L233-2"}},
		{"reads for ever", TopicsConfig{ReadsRetention: -1}, []string{"reads_retention"}},
		{"too short", TopicsConfig{ReadsRetention: time.Minute}, []string{"at least 1 h"}},
		{"partitions", TopicsConfig{ReadsPartitions: -1}, []string{"ReadsPartitions"}},
		{"prefix", TopicsConfig{Prefix: "a b"}, []string{"prefix"}},
		{"two at once", TopicsConfig{ReadsRetention: 90 * day, HitsRetention: 90 * day}, []string{"reads_retention", "hits_retention"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Topics(tt.cfg)
			for _, s := range tt.says {
				if err == nil || !strings.Contains(err.Error(), s) {
					t.Errorf("got %v, want it to say %q", err, s)
				}
			}
		})
	}
}

// No record may grow older than the law allows: a segment is removed when its newest record is
// old enough, at the next look.
func TestTopicsKeepTheLaw(t *testing.T) {
	specs, err := Topics(TopicsConfig{ReadsRetention: MaxReadsRetention, HitsRetention: MaxHitsRetention})
	if err != nil {
		t.Fatal(err)
	}
	longest := map[string]time.Duration{
		"vigie.reads": MaxReadsRetention, "vigie.images": MaxReadsRetention, "vigie.dead": MaxReadsRetention, "vigie.hits": MaxHitsRetention,
	}
	for _, s := range specs {
		limit, ok := longest[s.Name]
		if !ok {
			continue
		}
		delete(longest, s.Name)
		age := time.Duration(0)
		for _, setting := range []string{"retention.ms", "segment.ms"} {
			n, err := strconv.Atoi(s.Configs[setting])
			if err != nil || n <= 0 {
				t.Fatalf("%s: %s is %q", s.Name, setting, s.Configs[setting])
			}
			age += time.Duration(n) * time.Millisecond
		}
		if age+retentionCheck > limit {
			t.Errorf("%s: records may reach %v, more than %v", s.Name, age+retentionCheck, limit)
		}
		if s.Configs["cleanup.policy"] != "delete" || s.Configs["message.timestamp.type"] != "LogAppendTime" {
			t.Errorf("%s: %v", s.Name, s.Configs)
		}
	}
	if len(longest) > 0 {
		t.Errorf("no such topics: %v", longest)
	}
}

func TestApplyAndCheckTopics(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		cfg := TopicsConfig{Prefix: c.prefix, ReadsPartitions: 2}
		specs, err := Topics(cfg)
		if err != nil {
			t.Fatal(err)
		}
		problems, err := c.CheckTopics(t.Context(), specs)
		if err != nil || len(problems) != len(specs) {
			t.Fatalf("before: %v, %v, want a problem for each of %d topics", problems, err, len(specs))
		}
		for _, p := range problems {
			if p.Setting != "topic" || !strings.Contains(p.String(), "vigie topics apply") {
				t.Errorf("before: %v", p)
			}
		}
		apply := func(specs []TopicSpec) map[string]TopicResult {
			t.Helper()
			rs, err := c.ApplyTopics(t.Context(), specs)
			if err != nil {
				t.Fatalf("ApplyTopics: %v", err)
			}
			byName := make(map[string]TopicResult)
			for i, r := range rs {
				if r.Name != specs[i].Name {
					t.Errorf("result %d is of %s, want %s", i, r.Name, specs[i].Name)
				}
				byName[strings.TrimPrefix(r.Name, c.prefix)] = r
			}
			return byName
		}
		defer c.client.DeleteTopics(t.Context(), &kafkago.DeleteTopicsRequest{Topics: names(specs)})
		for _, r := range apply(specs) {
			if r.Action != ActionCreated {
				t.Errorf("first: %+v", r)
			}
		}
		if problems, err := c.CheckTopics(t.Context(), specs); err != nil || len(problems) > 0 {
			t.Fatalf("after: %v, %v", problems, err)
		}
		for _, r := range apply(specs) {
			if r.Action != ActionUnchanged || r.Detail != "" {
				t.Errorf("second: %+v", r)
			}
		}

		// Somebody has changed settings by hand; the configuration wants more partitions.
		_, err = c.client.IncrementalAlterConfigs(t.Context(), &kafkago.IncrementalAlterConfigsRequest{Resources: []kafkago.IncrementalAlterConfigsRequestResource{
			{ResourceType: kafkago.ResourceTypeTopic, ResourceName: c.topic(topicReads), Configs: []kafkago.IncrementalAlterConfigsRequestConfig{
				{Name: "retention.ms", Value: "-1"},
				{Name: "retention.bytes", Value: "123456789"},
				{Name: "flush.messages", Value: "12345"}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		cfg.ReadsPartitions = 5
		more, err := Topics(cfg)
		if err != nil {
			t.Fatal(err)
		}
		streamtest.Eventually(t, patience, "the brokers to know of it", func() bool {
			problems, err = c.CheckTopics(t.Context(), more)
			return err != nil || len(problems) >= 4
		})
		if err != nil {
			t.Fatal(err)
		}
		settings := make(map[string]TopicProblem)
		for _, p := range problems {
			settings[strings.TrimPrefix(p.Topic, c.prefix)+" "+p.Setting] = p
		}
		for _, want := range []string{"reads partitions", "reads retention.ms", "reads retention.bytes", "images partitions"} {
			if p, ok := settings[want]; !ok || p.Mend == "" {
				t.Errorf("no problem, or no mend, of %s: %v", want, problems)
			}
		}
		if len(problems) != 4 {
			t.Errorf("%d problems, want 4: %v", len(problems), problems)
		}
		rs := apply(more)
		if r := rs["reads"]; r.Action != ActionAltered || !strings.Contains(r.Detail, "retention.ms -1 -> ") || !strings.Contains(r.Detail, "left at 2 partitions") {
			t.Errorf("reads: %+v", r)
		}
		if r := rs["images"]; r.Action != ActionUnchanged || !strings.Contains(r.Detail, "left at 2 partitions") {
			t.Errorf("images: %+v", r)
		}
		if problems, err := c.CheckTopics(t.Context(), specs); err != nil || len(problems) > 0 {
			t.Errorf("at last: %v, %v", problems, err)
		}
		// What nobody asked for is left as it is.
		found, _, err := c.describe(t.Context(), []TopicSpec{{Name: c.topic(topicReads), Configs: map[string]string{"flush.messages": ""}}})
		if err != nil || found[c.topic(topicReads)].configs["flush.messages"] != "12345" {
			t.Errorf("flush.messages: %v, %v", found[c.topic(topicReads)], err)
		}
	})
}

func names(specs []TopicSpec) (ns []string) {
	for _, s := range specs {
		ns = append(ns, s.Name)
	}
	return ns
}

func TestApplyTopicsRefuses(t *testing.T) {
	each(t, func(t *testing.T, b backend) {
		c := open(t, b, Config{})
		_, err := c.client.CreateTopics(t.Context(), &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{
			{Topic: c.topic(topicControl), NumPartitions: 3, ReplicationFactor: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		specs := topicsOf(t, c)
		defer c.client.DeleteTopics(t.Context(), &kafkago.DeleteTopicsRequest{Topics: names(specs)})
		if _, err := c.ApplyTopics(t.Context(), specs); err == nil || !strings.Contains(err.Error(), "has 3 partitions and must have 1") {
			t.Errorf("a control topic of three partitions: %v", err)
		}
		problems, err := c.CheckTopics(t.Context(), specs[1:2])
		if err != nil || len(problems) == 0 || problems[0].Setting != "partitions" || problems[0].Got != "3" {
			t.Errorf("check: %v, %v", problems, err)
		}
		foreign := TopicSpec{Name: "other." + topicReads, Partitions: 1, Configs: maps.Clone(specs[0].Configs)}
		if _, err := c.ApplyTopics(t.Context(), []TopicSpec{foreign}); err == nil || !strings.Contains(err.Error(), "prefix") {
			t.Errorf("a topic of another prefix: %v", err)
		}
		impossible := specs[0]
		impossible.Configs = map[string]string{"retention.ms": "soon"}
		impossible.Name = c.topic(topicAudit)
		if _, err := c.ApplyTopics(t.Context(), []TopicSpec{impossible}); b.name == "kafka" && (err == nil || !strings.Contains(err.Error(), impossible.Name)) {
			t.Errorf("an impossible setting: %v", err)
		}
	})
}

func topicsOf(t *testing.T, c *Cluster) []TopicSpec {
	t.Helper()
	specs, err := Topics(TopicsConfig{Prefix: c.prefix, Replication: 1})
	if err != nil {
		t.Fatal(err)
	}
	return specs
}
