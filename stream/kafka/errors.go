package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
)

var (
	// ErrNotOwner says that a partition belongs to another member of the group by now, so
	// that nothing was committed.
	ErrNotOwner = errors.New("the partition belongs to another member of the group")
	// ErrRewound says that a partition ends before the offset to be read next: the topic
	// was made anew or has lost records. Reading begins again at its first record, since a
	// duplicate is better than a miss.
	ErrRewound = errors.New("the partition ends before the offset to be read next")
	// ErrLogTruncated says that the control log ends before what this process has applied:
	// its lists are not the lists of the log any more, and it must start again.
	ErrLogTruncated = errors.New("the control log ends before what was already applied: start the process again")
	// ErrLogUnread says that the process did not read the control log for so long (it was
	// stopped, or asleep) that compaction may have removed withdrawals which it has not seen.
	ErrLogUnread = errors.New("the control log was not read for too long, withdrawals may be missing: start the process again")
	// ErrTooLarge says that a record does not fit into one batch of its topic.
	ErrTooLarge = errors.New("the record is too large for its topic")
)

// transient reports whether trying again may mend err: brokers restarting, leaders moving,
// replicas missing, networks failing.
func transient(err error) bool {
	var code kafkago.Error
	if errors.As(err, &code) {
		switch code {
		case kafkago.Unknown, kafkago.BrokerNotAvailable, kafkago.ReplicaNotAvailable, kafkago.RebalanceInProgress:
			return true
		}
		return code.Temporary()
	}
	switch {
	case errors.Is(err, protocol.ErrNoTopic), errors.Is(err, protocol.ErrNoPartition), errors.Is(err, protocol.ErrNoLeader):
		return true // the layout may be old
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, io.ErrClosedPipe), errors.Is(err, net.ErrClosed), errors.Is(err, errAnswer):
		return true
	}
	var bad *badBatch
	var sys syscall.Errno
	var network net.Error
	return errors.As(err, &bad) || errors.As(err, &sys) || errors.As(err, &network)
}

// timedOut reports whether err is the end of somebody's patience.
func timedOut(err error) bool {
	var network net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}

// missing reports whether err says that a topic is not there.
func missing(err error) bool {
	return errors.Is(err, kafkago.UnknownTopicOrPartition) || errors.Is(err, protocol.ErrNoTopic)
}

// explain adds to an error about a topic what to do about it.
func (c *Cluster) explain(topic string, err error) error {
	if err == nil {
		return nil
	}
	why := ""
	switch {
	case missing(err), errors.Is(err, protocol.ErrNoPartition) && c.unknown(topic):
		return fmt.Errorf("topic %s does not exist: run `vigie topics apply`: %w", topic, err)
	case errors.Is(err, protocol.ErrNoLeader), errors.Is(err, protocol.ErrNoPartition), errors.Is(err, kafkago.LeaderNotAvailable):
		why = "a partition has no leader: see whether all brokers run"
	case errors.Is(err, kafkago.NotEnoughReplicas), errors.Is(err, kafkago.NotEnoughReplicasAfterAppend):
		why = "fewer replicas are in sync than min.insync.replicas asks for: bring the other brokers back"
	case errors.Is(err, kafkago.TopicAuthorizationFailed):
		why = "the Kafka user has no permission for this topic"
	case errors.Is(err, kafkago.GroupAuthorizationFailed):
		why = "the Kafka user has no permission for this consumer group"
	case errors.Is(err, kafkago.ClusterAuthorizationFailed):
		why = "the Kafka user has no permission for this on the cluster"
	case errors.Is(err, kafkago.MessageSizeTooLarge), errors.Is(err, kafkago.RecordListTooLarge):
		why = "larger than max.message.bytes of the topic"
	case timedOut(err):
		why = "no broker has answered in time"
	default:
		var opErr *net.OpError
		if errors.As(err, &opErr) {
			return explainDial(err, c.tls != nil, c.sasl != nil)
		}
		return err
	}
	return fmt.Errorf("%s: %w", why, err)
}

// unknown reports whether the layout says that there is no such topic. It does not ask brokers.
func (c *Cluster) unknown(topic string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := c.partitions(ctx, topic)
	return missing(err)
}

// explainDial adds to an error of connecting what to look at.
func explainDial(err error, tls, sasl bool) error {
	var dns *net.DNSError
	var why string
	switch {
	case errors.As(err, &dns):
		why = "the host name is unknown here: check the address and DNS"
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "nothing listens there: check the port and whether Kafka runs"
	case errors.Is(err, kafkago.SASLAuthenticationFailed):
		why = "user or password is wrong"
	case errors.Is(err, kafkago.UnsupportedSASLMechanism):
		why = "the broker does not offer this SASL mechanism on this port"
	case timedOut(err):
		why = "no answer in time: check firewalls and whether the broker hangs"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		switch {
		case !tls:
			why = "the broker hung up: the port may ask for TLS or SASL"
		case !sasl:
			why = "the broker hung up: the port may ask for SASL or a client certificate"
		default:
			why = "the broker hung up: check TLS and SASL of this port"
		}
	case errors.Is(err, context.Canceled):
		return err
	default:
		return err
	}
	return fmt.Errorf("%s: %w", why, err)
}
