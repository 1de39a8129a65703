// Package metrics shows what the parts count, at the moment somebody asks. The
// parts keep plain counters and know nothing of Prometheus; no label ever holds
// a plate, a read id or anything else that a sensor wrote. The id of a sensor is
// one only when the registry has it.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"vigie/cmd/vigie/internal/httpapi"
	"vigie/sensors"
	"vigie/stream"
	"vigie/stream/alert"
	"vigie/stream/redisqueue"
)

// Registry gathers the collectors of one process.
type Registry struct{ reg *prometheus.Registry }

// New returns a Registry with the figures of the Go runtime and the process.
func New() *Registry {
	r := &Registry{reg: prometheus.NewRegistry()}
	r.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Handler answers a scrape.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{Registry: r.reg})
}

// collector asks a part for its figures at each scrape.
type collector func(emit func(prometheus.Metric))

// Describe sends nothing: the collector is unchecked, its metrics are consts.
func (c collector) Describe(chan<- *prometheus.Desc) {}

func (c collector) Collect(ch chan<- prometheus.Metric) { c(func(m prometheus.Metric) { ch <- m }) }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("vigie_"+name, help, labels, nil)
}

func counter[N int64 | uint64](d *prometheus.Desc, v N, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func gauge(d *prometheus.Desc, v float64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func histogram(d *prometheus.Desc, h stream.Histogram, bounds []float64, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(bounds))
	for i, le := range bounds {
		buckets[le] = uint64(h.Counts[i])
	}
	return prometheus.MustNewConstHistogram(d, uint64(h.Counts[len(bounds)]), h.Sum, buckets, labels...)
}

// Replica shows how far this process is with the control log.
func (r *Registry) Replica(rep *stream.Replica) {
	var (
		version = desc("control_version", "Control-log offset this process matches by. Processes that differ for more than a second are behind.")
		behind  = desc("control_behind_records", "Control records this process has yet to apply. More than 0 for a minute: look at Kafka.")
		age     = desc("control_age_seconds", "How long this process has heard nothing of the control log, not even that there is nothing new; below 1 when all is well. More than 10: it is cut off from Kafka or the log is damaged, see its log. Withdrawals are not heard of; confirmed ones still hold, since Redis refuses alerts of older lists.")
		bad     = desc("control_bad_records_total", "Control records that could not be read; what they were about is not matched. Any: see the log.")
		entries = desc("matcher_entries", "Entries that reads are matched against.")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		emit(gauge(version, float64(rep.Version())))
		emit(gauge(behind, float64(rep.Behind())))
		emit(gauge(age, rep.Age().Seconds()))
		emit(counter(bad, rep.BadRecords()))
		emit(gauge(entries, float64(rep.Matcher().Snapshot().Len())))
	}))
}

// Processor shows what becomes of reads.
func (r *Registry) Processor(p *stream.Processor) {
	var (
		reads   = desc("stream_reads_total", "Reads matched.")
		noPlate = desc("stream_no_plate_reads_total", "Reads on which the camera saw no plate.")
		alerts  = desc("stream_alerts_total", "Alerts newly stored in a queue.")
		dups    = desc("stream_duplicate_alerts_total", "Alerts that were in their queue already: repeats after a crash, or further reads of a passage.")
		stale   = desc("stream_stale_alerts_total", "Alerts refused because a withdrawal was confirmed meanwhile, and matched again.")
		dead    = desc("stream_dead_letters_total", "Records that are not reads, by reason; see the dead-letter topic. Reason panic: reads that this program cannot handle, see stream_panics_total.", "reason")
		panics  = desc("stream_panics_total", "Panics while a batch or a read was handled. Any: a fault of the program. Reads are not held up; the one at fault is in the dead-letter topic with reason panic. Report the place that the log tells, upgrade, then replay the time.")
		foreign = desc("stream_unknown_sensor_reads_total", "Reads that hit, of sensors that the registry has not. They alert without a place, and not for lists limited to zones: register the sensor.")
		skipped = desc("stream_skipped_reads_total", "Reads gone, by retention or loss, before they were matched. Any: raise the retention, add matchers, look at the brokers.")
		retries = desc("stream_retries_total", "Failed calls to Redis, the hits topic or the dead-letter topic. Rising: alerts wait, look at those services.")
		lag     = desc("stream_lag_records", "Records not yet fetched, by partition owned here.", "partition")
		latency = desc("stream_latency_seconds", "From the gateway having a read to its alert in the queue.")
		batch   = desc("stream_batch_reads", "Records handled at a time: few when idle, up to 8192 behind a backlog. Large for minutes: the matchers cannot keep up, see stream_stage_seconds for what takes the time.")
		stage   = desc("stream_stage_seconds", "Time that each batch spends in a stage. wait: until a read comes, idle. fetch: reads that wait in Kafka; over 5 ms, look at the brokers. decode, match: over 2.9 ms for a full batch, look at the CPU. queues: over 3 ms, look at Redis. hits, dead, commit: look at Kafka.", "stage")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		s := p.Stats()
		emit(counter(reads, s.Reads))
		emit(counter(noPlate, s.Sentinels))
		emit(counter(alerts, s.Alerts))
		emit(counter(dups, s.Duplicates))
		emit(counter(stale, s.Stale))
		for reason, n := range s.Dead {
			emit(counter(dead, n, string(reason)))
		}
		emit(counter(panics, s.Panics))
		emit(counter(foreign, s.UnknownSensor))
		emit(counter(skipped, s.Skipped))
		emit(counter(retries, s.Retries))
		for part, n := range s.Lag {
			emit(gauge(lag, float64(n), strconv.Itoa(part)))
		}
		emit(histogram(latency, s.Latency, stream.LatencyBuckets[:]))
		emit(histogram(batch, s.Batches, stream.BatchBuckets[:]))
		for i, h := range s.Stages {
			emit(histogram(stage, h, stream.StageBuckets[:], stream.StageNames[i]))
		}
	}))
}

// Gateway shows what sensors send.
func (r *Registry) Gateway(g *sensors.Gateway) {
	var (
		accepted = desc("sensors_accepted_reads_total", "Reads accepted: Kafka has them, or the spool.")
		rejected = desc("sensors_rejected_reads_total", "Reads refused, by the field at fault.", "field")
		foreign  = desc("sensors_foreign_reads_total", "Reads refused because their token is bound to another sensor: a wrong set-up, or forged.")
		noPlate  = desc("sensors_no_plate_reads_total", "Accepted reads on which the camera saw no plate.")
		country  = desc("sensors_unknown_country_reads_total", "Accepted reads whose country text is not known: set the sensor up.")
		batches  = desc("sensors_batches_total", "Requests published.")
		failures = desc("sensors_publish_failures_total", "Requests that could not be published; their senders were told to come again.")
		delay    = desc("sensors_delay_seconds", "From capture by the sensor's clock to arrival. Negative: that clock runs ahead.")
		unknown  = desc("sensors_unknown_reads_total", "Reads of sensors that the registry has not, by what became of them: accept, quarantine, refuse, or lost when the quarantine could not be written. Any: see `vigie sensors health` for which, and register them.", "outcome")
		repeated = desc("sensors_duplicate_reads_total", "Accepted reads that the same sensor had sent a moment before. Many: our answers do not reach it, or it repeats itself.")
		silent   = desc("sensors_silent", "Registered sensors of which nothing was heard for longer than is usual for them at this hour. See `vigie sensors health` for which.")
		unlisted = desc("sensors_unregistered", "Sensors that sent reads and are not in the registry, for a week after the last one.")
		watched  = desc("sensors_watched", "Sensors that this process has heard of since it started; what it knows of them starts anew with it.")
		untold   = desc("sensors_untold_reads_total", "Reads of sensors beyond those that are watched.")
		skew     = desc("sensors_skew_seconds", "The sensors as they stand now by the median skew of their clock: arrival minus capture, negative when it runs ahead. Many in the outer buckets: clocks to set, or a format profile with the wrong clock or time zone.")
		lastSeen = desc("sensors_last_read_timestamp_seconds", "When a registered sensor sent its last read.", "sensor")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		s := g.Stats()
		emit(counter(accepted, s.Accepted))
		for field, n := range s.Rejected {
			emit(counter(rejected, n, field))
		}
		emit(counter(foreign, s.ForeignSensor))
		emit(counter(noPlate, s.Sentinels))
		emit(counter(country, s.UnknownCountry))
		emit(counter(batches, s.Batches))
		emit(counter(failures, s.PublishErrors))
		buckets := make(map[float64]uint64, len(sensors.DelayBounds))
		var sum uint64
		for i, le := range sensors.DelayBounds {
			sum += s.Delay.Counts[i]
			buckets[le.Seconds()] = sum
		}
		emit(prometheus.MustNewConstHistogram(delay, sum+s.Delay.Counts[len(sensors.DelayBounds)], s.Delay.Sum.Seconds(), buckets))
		for policy, n := range s.UnknownSensor {
			emit(counter(unknown, n, sensors.UnknownPolicy(policy).String()))
		}
		emit(counter(unknown, s.QuarantineLost, "lost"))
		emit(counter(repeated, s.Duplicates))
		h := g.Health()
		emit(gauge(silent, float64(h.Silent)))
		emit(gauge(unlisted, float64(h.Unregistered)))
		emit(gauge(watched, float64(len(h.Sensors))))
		emit(counter(untold, h.Untold))
		emit(skewOf(skew, h.Sensors))
		for _, sn := range h.Sensors {
			// Anybody with a token for any sensor can invent ids; those of the registry
			// are as many as there are, and told up to sensors.Config.MaxSensors.
			if !sn.Unregistered && !sn.LastRead.IsZero() {
				emit(gauge(lastSeen, float64(sn.LastRead.UnixNano())/float64(time.Second), sn.ID))
			}
		}
	}))
}

// skewOf is how many sensors have which skew of their clock. Unlike the other
// histograms it is of now, and not of what has been: it may shrink.
func skewOf(d *prometheus.Desc, all []sensors.SensorHealth) prometheus.Metric {
	buckets := make(map[float64]uint64, len(sensors.DelayBounds))
	for _, le := range sensors.DelayBounds {
		buckets[le.Seconds()] = 0
	}
	var n uint64
	var sum float64
	for _, s := range all {
		if s.Skew == nil {
			continue
		}
		n++
		sum += *s.Skew
		for le := range buckets {
			if *s.Skew <= le {
				buckets[le]++
			}
		}
	}
	return prometheus.MustNewConstHistogram(d, n, sum, buckets)
}

// Queues shows what happens to alerts in Redis.
func (r *Registry) Queues(q *redisqueue.Queues) {
	var (
		stored    = desc("redisqueue_stored_alerts_total", "Alerts put into a queue by this process.")
		steps     = desc("redisqueue_steps_total", "Steps that patrols made, by verb.", "verb")
		conflicts = desc("redisqueue_conflicts_total", "Steps refused: somebody was faster, or the step may not follow.")
		revised   = desc("redisqueue_revised_alerts_total", "Alerts that a later read of their passage changed: withdrawn or doubted (other_plate), raised again (read_again), amended (new_evidence). Many other_plate of one sensor: look at it.", "outcome")
		restored  = desc("redisqueue_restored_events_total", "Events put back from the hits topic.")
		failures  = desc("redisqueue_failures_total", "Calls that Redis did not answer, or not well. Rising: alerts wait, look at Redis.")
		refusals  = desc("redisqueue_refusals_total", "Calls that Redis refused, by its word: readonly and masterdown during a fail-over, loading after a restart, oom when maxmemory is reached, misconf when its disk fails.", "reason")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		s := q.Stats()
		emit(counter(stored, s.Stored))
		for verb, n := range s.Steps {
			emit(counter(steps, n, verb.String()))
		}
		emit(counter(conflicts, s.Conflicts))
		emit(counter(revised, s.Corrected, alert.OutcomeOtherPlate))
		emit(counter(revised, s.Raised, alert.OutcomeReadAgain))
		emit(counter(revised, s.Amended, alert.OutcomeEvidence))
		emit(counter(restored, s.Restored))
		emit(counter(failures, s.Failures))
		for reason, n := range s.Refused {
			emit(counter(refusals, n, reason))
		}
	}))
}

// Failover shows what became of alerts when Redis was lost or failed over.
func (r *Registry) Failover(f *stream.Failover) {
	var (
		failovers = desc("queues_failovers_total", "Times that this process found another Redis, a restarted one, or one that has lost the queues. Any: see the log.")
		restored  = desc("queues_restored_total", "Alerts and steps put back from the hits topic after a fail-over.")
		unwanted  = desc("queues_unwanted_total", "Alerts not put back after a fail-over because they were withdrawn meanwhile.")
		failures  = desc("queues_look_failures_total", "Looks at Redis, and tries to make a fail-over good, that failed. Rising: see the log.")
		blocked   = desc("queues_blocked_seconds", "How long alerts have been waiting for Redis by now; 0 while they do not. More than 5: look at Redis, nothing is lost meanwhile.")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		s := f.Stats()
		emit(counter(failovers, s.Failovers))
		emit(counter(restored, s.Restored))
		emit(counter(unwanted, s.Unwanted))
		emit(counter(failures, s.Failures))
		emit(gauge(blocked, s.Blocked.Seconds()))
	}))
}

// Hub shows who listens to alerts.
func (r *Registry) Hub(h *redisqueue.Hub) {
	var (
		subscribers = desc("redisqueue_subscribers", "Alert streams open on this process.")
		slow        = desc("redisqueue_slow_subscribers_total", "Alert streams cut because their reader was too slow.")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		s := h.Stats()
		emit(gauge(subscribers, float64(s.Subscribers)))
		emit(counter(slow, s.Slow))
	}))
}

// HTTP shows what clients ask and what they are told.
func (r *Registry) HTTP(server *httpapi.Server) {
	var (
		requests = desc("http_requests_total", "Requests answered, by route and class of status. 5xx rising: see the log; 4xx: a client is set up wrongly.", "route", "class")
		seconds  = desc("http_request_seconds_total", "Time that these requests took; streams count nothing.", "route", "class")
		withheld = desc("http_withheld_alerts_total", "Alerts not handed out because the lists no longer say what they claim.")
	)
	r.reg.MustRegister(collector(func(emit func(prometheus.Metric)) {
		s := server.Stats()
		for _, rt := range s.Routes {
			emit(counter(requests, rt.Requests, rt.Route, rt.Class))
			emit(prometheus.MustNewConstMetric(seconds, prometheus.CounterValue, rt.Seconds, rt.Route, rt.Class))
		}
		emit(counter(withheld, s.Withheld))
	}))
}
