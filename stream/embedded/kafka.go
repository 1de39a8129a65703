package embedded

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"go.uber.org/zap"
)

const (
	// never is how long kfake waits between its own clean-ups: it must not run them. They
	// compact by deleting a partition's files and writing them again, so that a process
	// killed in between loses the control log, and they apply retention to compacted topics
	// too, 7 days unless told otherwise. Run applies retention instead.
	never = 100 * 365 * 24 * time.Hour

	// memorySegment and dirSegment are the unit in which memory and disk are given back.
	memorySegment = 8 << 20
	dirSegment    = 16 << 20

	// kafkaRetention is what Kafka keeps by default, in milliseconds.
	kafkaRetention = 7 * 24 * 3600 * 1000

	startTimeout = 30 * time.Second
)

// startKafka starts the broker on ln. With dir it loads what an earlier broker left there.
func startKafka(ln net.Listener, password string, dir *dataDir, partitionBytes int64, log *zap.Logger) (*kfake.Cluster, error) {
	segment := int64(memorySegment)
	if dir != nil {
		segment = dirSegment
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(1),
		kfake.ListenFn(func(string, string) (net.Listener, error) { return ln, nil }),
		kfake.ClusterID(ClusterID),
		kfake.WithLogger(kafkaLog{log}),
		kfake.EnableSASL(),
		kfake.Superuser("PLAIN", kafkaUser, password),
		kfake.BrokerConfigs(map[string]string{
			"log.cleaner.backoff.ms": strconv.FormatInt(never.Milliseconds(), 10),
			"log.retention.ms":       "-1", // per topic, see createTopics
			"log.segment.bytes":      strconv.FormatInt(segment, 10),
		}),
	}
	if dir != nil {
		// Synced, because a read that was accepted with 202 must survive a power cut. It
		// costs two fsyncs for each partition of a produce request, one after the other.
		opts = append(opts, kfake.DataDir(dir.kafka()), kfake.SyncWrites())
		if err := dir.prepareKafka(); err != nil {
			return nil, err
		}
	}
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("embedded: start Kafka: %w", err)
	}
	always(c, kmsg.SASLAuthenticate, authenticate(password))
	always(c, kmsg.CreateTopics, createTopics(partitionBytes))
	always(c, kmsg.AlterConfigs, alterConfigs(c))
	always(c, kmsg.IncrementalAlterConfigs, incrementalAlterConfigs(c))
	if dir != nil {
		err := errors.Join(dir.forgetPasswords(), rewindLostOffsets(ln.Addr().String(), password, c, log))
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("embedded: start Kafka: %w", err)
		}
	}
	return c, nil
}

// handler looks at a request before kfake does. It answers it by returning a response, or
// changes it in place and returns nil to let kfake answer.
type handler func(kmsg.Request) kmsg.Response

// always installs h for every request of one kind. kfake drops a control function that has
// answered unless told to keep it, and remembers a request for each connection that ever
// met the function; replacing it at each request forgets both.
func always(c *kfake.Cluster, key kmsg.Key, h handler) {
	c.ControlKey(key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.DropControl()
		always(c, key, h)
		resp := h(req)
		return resp, nil, resp != nil
	})
}

// authenticate refuses a wrong login. kfake compares with the password of a user it does
// not know, which is empty, and so lets any unknown name in that gives no password.
func authenticate(password string) handler {
	want := []byte("\x00" + kafkaUser + "\x00" + password)
	return func(kreq kmsg.Request) kmsg.Response {
		req := kreq.(*kmsg.SASLAuthenticateRequest)
		// authzid NUL user NUL password; the first may repeat the user.
		got := req.SASLAuthBytes
		if !bytes.HasPrefix(got, []byte{0}) {
			got = bytes.TrimPrefix(got, []byte(kafkaUser))
		}
		if subtle.ConstantTimeCompare(got, want) == 1 {
			return nil
		}
		resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		resp.ErrorCode = kerr.SaslAuthenticationFailed.Code
		resp.ErrorMessage = kmsg.StringPtr("wrong user or password")
		return resp
	}
}

// createTopics writes into each new topic what kfake would not do for it: see never, and
// Config.PartitionBytes.
func createTopics(partitionBytes int64) handler {
	return func(kreq kmsg.Request) kmsg.Response {
		req := kreq.(*kmsg.CreateTopicsRequest)
		for i := range req.Topics {
			t := &req.Topics[i]
			policy, retention, size := "delete", false, false
			for _, c := range t.Configs {
				switch c.Name {
				case "cleanup.policy":
					if c.Value != nil {
						policy = *c.Value
					}
				case "retention.ms":
					retention = true
				case "retention.bytes":
					size = true
				}
			}
			if policy == "compact" {
				t.Configs = slices.DeleteFunc(t.Configs, func(c kmsg.CreateTopicsRequestTopicConfig) bool {
					return isRetention(c.Name)
				})
				continue
			}
			add := func(name string, value int64) {
				c := kmsg.NewCreateTopicsRequestTopicConfig()
				c.Name = name
				c.Value = kmsg.StringPtr(strconv.FormatInt(value, 10))
				t.Configs = append(t.Configs, c)
			}
			if !retention {
				add("retention.ms", kafkaRetention)
			}
			if !size {
				add("retention.bytes", partitionBytes)
			}
		}
		return nil
	}
}

// alterConfigs and incrementalAlterConfigs keep retention away from compacted topics.
func alterConfigs(c *kfake.Cluster) handler {
	return func(kreq kmsg.Request) kmsg.Response {
		req := kreq.(*kmsg.AlterConfigsRequest)
		for i := range req.Resources {
			r := &req.Resources[i]
			if isCompacted(c, r.ResourceType, r.ResourceName) {
				r.Configs = slices.DeleteFunc(r.Configs, func(c kmsg.AlterConfigsRequestResourceConfig) bool {
					return isRetention(c.Name)
				})
			}
		}
		return nil
	}
}

func incrementalAlterConfigs(c *kfake.Cluster) handler {
	return func(kreq kmsg.Request) kmsg.Response {
		req := kreq.(*kmsg.IncrementalAlterConfigsRequest)
		for i := range req.Resources {
			r := &req.Resources[i]
			if isCompacted(c, r.ResourceType, r.ResourceName) {
				r.Configs = slices.DeleteFunc(r.Configs, func(c kmsg.IncrementalAlterConfigsRequestResourceConfig) bool {
					return isRetention(c.Name)
				})
			}
		}
		return nil
	}
}

func isRetention(config string) bool { return config == "retention.ms" || config == "retention.bytes" }

// isCompacted reports whether the resource is a topic from which only compaction removes.
func isCompacted(c *kfake.Cluster, kind kmsg.ConfigResourceType, name string) bool {
	if kind != kmsg.ConfigResourceTypeTopic {
		return false
	}
	info := c.TopicInfo(name)
	if info == nil {
		return false
	}
	policy := info.Configs["cleanup.policy"]
	return policy != nil && *policy == "compact"
}

// rewindLostOffsets moves committed offsets that point beyond the end of their partition
// back to the end. When retention has removed a partition's last record, kfake numbers from
// 0 again after a restart; a consumer left at the old offset would skip every new read.
func rewindLostOffsets(addr, password string, c *kfake.Cluster, log *zap.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.SASL(plain.Auth{User: kafkaUser, Pass: password}.AsMechanism()))
	if err != nil {
		return err
	}
	defer client.Close()
	groups, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("list groups: %w", err)
	}
	for _, g := range groups.Groups {
		info := c.GroupInfo(g.Group)
		if info == nil {
			continue
		}
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group = g.Group
		req.Generation = -1 // nobody has joined yet
		for topic, commits := range info.Commits {
			t := kmsg.NewOffsetCommitRequestTopic()
			t.Topic = topic
			if known := c.TopicInfo(topic); known != nil {
				t.TopicID = known.TopicID // what version 10 of the request goes by
			}
			for id, commit := range commits {
				p := c.PartitionInfo(topic, id)
				if p == nil || commit.Offset <= p.HighWatermark {
					continue
				}
				log.Warn("embedded: committed offset lies beyond the log, moved back to its end",
					zap.String("group", g.Group), zap.String("topic", topic), zap.Int32("partition", id),
					zap.Int64("committed", commit.Offset), zap.Int64("end", p.HighWatermark))
				rp := kmsg.NewOffsetCommitRequestTopicPartition()
				rp.Partition = id
				rp.Offset = p.HighWatermark
				t.Partitions = append(t.Partitions, rp)
			}
			if len(t.Partitions) > 0 {
				req.Topics = append(req.Topics, t)
			}
		}
		if len(req.Topics) == 0 {
			continue
		}
		resp, err := req.RequestWith(ctx, client)
		if err != nil {
			return fmt.Errorf("rewind group %s: %w", g.Group, err)
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return fmt.Errorf("rewind group %s on %s/%d: %w", g.Group, t.Topic, p.Partition, err)
				}
			}
		}
	}
	return nil
}

// kafkaLog passes on what kfake warns of: failed writes, corrupt ends of files. Its other
// messages tell of single requests.
type kafkaLog struct{ *zap.Logger }

func (l kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError:
		l.Error("embedded: Kafka", zap.String("detail", fmt.Sprintf(format, args...)))
	case kfake.LogLevelWarn:
		l.Warn("embedded: Kafka", zap.String("detail", fmt.Sprintf(format, args...)))
	}
}
