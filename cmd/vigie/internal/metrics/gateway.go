package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"vigie/sensors/ingest"
	"vigie/sensors/mqtt"
	"vigie/sensors/passage"
	"vigie/sensors/spool"
)

// Spool shows what waits on this machine for Kafka.
func (r *Registry) Spool(s *spool.Spool, p *spool.Publisher) {
	var (
		depth    = desc("spool_reads", "Reads on disk that wait for Kafka.")
		bytes    = desc("spool_bytes", "Bytes of the spool.")
		age      = desc("spool_oldest_seconds", "Age of the read that waits for Kafka longest; 0 when none does.")
		open     = desc("spool_circuit_open", "1 while Kafka is taken to be away and reads go to the spool.")
		trips    = desc("spool_outages_total", "Times that Kafka was found to be away.")
		appended = desc("spool_appended_reads_total", "Reads accepted because the disk has them.")
		drained  = desc("spool_drained_reads_total", "Reads of the spool that Kafka has taken since.")
		lost     = desc("spool_lost_reads_total", "Accepted reads that did not reach Kafka: damaged on the disk, past the legal maximum, or refused by Kafka for good.", "reason")
		full     = desc("spool_full_reads_total", "Reads refused since the spool may not grow; their senders were told to come again.")
		failures = desc("spool_disk_errors_total", "Writes that the disk failed; nothing of them was acknowledged.")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		st, ps := s.Stats(), p.Stats()
		isOpen := 0.0
		if ps.Open {
			isOpen = 1
		}
		emit(gauge(depth, float64(st.Depth)))
		emit(gauge(bytes, float64(st.Bytes)))
		emit(gauge(age, st.OldestAge.Seconds()))
		emit(gauge(open, isOpen))
		emit(counter(trips, ps.Trips))
		emit(counter(appended, st.Appended))
		emit(counter(drained, st.Drained))
		emit(counter(lost, st.Damaged, "damaged"))
		emit(counter(lost, st.TooOld, "age"))
		emit(counter(lost, ps.Refused, "refused"))
		emit(counter(full, st.Full))
		emit(counter(failures, st.SyncErrors))
	}))
}

// Ingest shows what comes in vendors' formats.
func (r *Registry) Ingest(in *ingest.Ingester) {
	var (
		messages   = desc("ingest_messages_total", "Messages of vendors' formats taken in.")
		heartbeats = desc("ingest_heartbeats_total", "Messages among them that say that a sensor is alive.")
		refused    = desc("ingest_refused_messages_total", "Messages that nobody can read, by why: format (which vendor's it is, is not known) or content.", "reason")
		garbled    = desc("ingest_garbled_reads_total", "Reads of messages that could not be decoded.")
		failed     = desc("ingest_failed_messages_total", "Messages that could not be stored; their senders were told to come again.")
		pictures   = desc("ingest_lost_pictures_total", "Reads that went on without a picture they came with: it was none, too large, or storing it took too long.")
		decisions  = desc("passages_reads_total", "Reads of vendors' formats by what they are of their passage: first and those that change or strengthen what was read before go on, others tell nothing new.", "reason")
		remembered = desc("passages", "Passages remembered now.")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		s := in.Stats()
		emit(counter(messages, s.Messages))
		emit(counter(heartbeats, s.Heartbeats))
		emit(counter(refused, s.UnknownFormat, "format"))
		emit(counter(refused, s.Undecodable, "content"))
		emit(counter(garbled, s.Garbled))
		emit(counter(failed, s.Failed))
		emit(counter(pictures, s.PicturesLost))
		for reason, n := range s.Passages.Decisions {
			emit(counter(decisions, n, passage.Reason(reason).String()))
		}
		emit(gauge(remembered, float64(s.Passages.Passages)))
	}))
}

// MQTT shows the connection to the broker that sensors publish to.
func (r *Registry) MQTT(sub *mqtt.Subscriber) {
	var (
		connected = desc("mqtt_connected", "1 while the broker is reached.")
		errs      = desc("mqtt_connect_failures_total", "Attempts to reach the broker that failed.")
		lost      = desc("mqtt_lost_sessions_total", "Times that the broker had forgotten us: what was published while we were away is lost.")
		received  = desc("mqtt_messages_total", "Messages, by what became of them: stored, unusable (acknowledged, since nobody can read them), dropped (published at QoS 0, and no room).", "outcome")
		queued    = desc("mqtt_queued_messages", "Messages that wait here.")
		failed    = desc("mqtt_store_failures_total", "Attempts to store a message that failed; it is tried again.")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		s := sub.Stats()
		up := 0.0
		if s.Connected {
			up = 1
		}
		emit(gauge(connected, up))
		emit(counter(errs, s.ConnectErrors))
		emit(counter(lost, s.SessionsLost))
		emit(counter(received, s.Stored, "stored"))
		emit(counter(received, s.Unusable, "unusable"))
		emit(counter(received, s.Dropped, "dropped"))
		emit(gauge(queued, float64(s.Queued)))
		emit(counter(failed, s.Failed))
	}))
}
