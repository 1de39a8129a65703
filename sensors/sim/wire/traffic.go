// Package wire makes of a simulated fleet the messages that devices of many vendors would send: in
// their formats, as many for one vehicle as they send, and with the faults of real ones. Clocks are
// wrong, links go away, and what was not answered is sent again.
//
// The messages are built as the vendors build theirs, and nothing in them is real. Like package sim it
// reads no clock and no network; the same Config gives the same messages for ever.
package wire

import (
	"container/heap"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vigie/sensors"
	"vigie/sensors/sim"
)

// Config configures New. A share of 0 is none.
type Config struct {
	Seed uint64
	// Formats are those of the devices, one of Formats each, which take turns in it. All when
	// empty.
	Formats []string
	MQTT    bool    // the devices publish through a broker; Native is not for it
	Sensors int     // devices, 20 when 0, at most sim.MaxSensors
	Rate    float64 // messages about vehicles per second over the whole fleet, 100 when 0
	// Start is the time at which the first message may be due; 1 June 2026, 06:00 UTC when
	// zero.
	Start time.Time
	// Misreads is the share of wrong reads, at most 0.4.
	Misreads float64
	// Outage is the share of the time for which the link of a device is away, at most 0.9: for
	// 2 to 8 s at a time. What it has to say meanwhile it keeps, and sends afterwards.
	Outage float64
	// Skew is the share of devices whose clock is wrong, by up to 90 s.
	Skew float64
	// Retransmit is the share of messages that are sent twice, as by a device that has heard no
	// answer.
	Retransmit float64
	// Late is how long ago all vehicles have passed: the devices send what they have kept of an
	// outage that long, and nothing else.
	Late time.Duration
}

// Message is one message of a device.
type Message struct {
	Sensor      string // id of the device
	Format      string
	Due         time.Time // when it is sent; never before that of the message before
	Path        string    // to POST it to, with a query where the message does not name its sensor
	Topic       string    // to publish it to; empty for Native
	ContentType string
	Body        []byte
	// Read is what the message tells of a vehicle as the device means it, nil when it tells of
	// none. Its time is by the clock of the device, and it has no passage but for Native.
	Read    *sensors.Read
	Passage string // of the fleet; empty for a heartbeat
	First   bool   // of its passage
	Again   bool   // sent before
	Late    bool   // kept while the link was away
}

// Native is the format of POST /v1/reads.
const Native = "native"

// Formats returns the names of the formats, in a fixed order: those of package format, and Native.
func Formats() []string {
	names := make([]string, len(vendors))
	for i := range vendors {
		names[i] = vendors[i].name
	}
	return names
}

// vendor says how the devices of one vendor speak.
type vendor struct {
	name string
	// passage returns what a device says of a vehicle, by time.
	passage func(d *device, p *passage) []saying
	// beat returns what it says every beatEvery to show that it is alive; nil when it says
	// nothing.
	beat  func(d *device, at time.Time) saying
	flags bool // marks what it sends late
	asks  bool // its messages do not name their sensor
}

var vendors = []vendor{
	{name: "onvif", passage: onvif, asks: true},
	{name: "openalpr", passage: openALPR, beat: openALPRBeat},
	{name: "platerecognizer", passage: plateRecognizer},
	{name: "hikvision", passage: hikvision, beat: hikvisionBeat, flags: true},
	{name: "axis", passage: axis},
	{name: "dahua", passage: dahua, beat: dahuaBeat},
	{name: "genetec", passage: genetec},
	{name: "frigate", passage: frigate},
	{name: Native, passage: native, flags: true},
}

// saying is what a device has to say.
type saying struct {
	at          time.Time // when it would send it
	read        *sensors.Read
	contentType string
	topic       string // "" for the one that Traffic makes
	body        func(late bool) []byte
}

// passage is a vehicle at a device.
type passage struct {
	id    string
	track uint32 // counted by the device
	steps []sim.Step
}

// best is the step that was read with most confidence.
func (p *passage) best() *sim.Step {
	best := &p.steps[0]
	for i := range p.steps {
		if s := &p.steps[i]; s.Read.Conf > best.Read.Conf {
			best = s
		}
	}
	return best
}

// device is a sensor of the fleet with the habits of its vendor.
type device struct {
	sim.Sensor
	vendor   *vendor
	n        int // among those of the fleet
	mqtt     bool
	pictures bool // sends pictures, in a form where the vendor has one
	away     bool // sees vehicles from behind
	dice     *sim.Dice
	clock    time.Duration // by which its clock is ahead
	tracks   uint32        // vehicles so far
	counter  uint32        // messages so far, for vendors who count

	from, until time.Time // the present outage, or the next
	kept        []event   // during an outage, by time
}

// ms is a time by the clock of the device.
func (d *device) ms(at time.Time) int64 { return at.Add(d.clock).UnixMilli() }

// after returns a time lo to hi milliseconds after at.
func (d *device) after(at time.Time, lo, hi int) time.Time {
	return at.Add(time.Duration(d.dice.Between(lo, hi)) * time.Millisecond)
}

// event is something that happens at a device.
type event struct {
	at      time.Time
	n       uint64 // of events, to keep the order of those at the same time
	device  *device
	kind    kind
	saying  saying  // of says and beats
	message Message // of repeats
	passage string
	first   bool
	late    bool
}

type kind uint8

const (
	says    kind = iota
	beats        // says that it is alive
	repeats      // sends a message again
	returns      // has its link again
)

// Times of a device.
const (
	// spread is the longest time between the first read of a passage and the last; see
	// sim.Fleet.Next.
	spread = 500 * time.Millisecond
	// beatEvery is the time between two heartbeats of a device.
	beatEvery = 30 * time.Second
	// drainEvery is the time between two messages that were kept.
	drainEvery = 20 * time.Millisecond
	// maxKept is how many messages a device keeps; the oldest make room.
	maxKept = 10_000
	// meanOutage is the mean of 2 to 8 s.
	meanOutage = 5 * time.Second
)

// Traffic yields messages. It is not safe for concurrent use.
type Traffic struct {
	cfg     Config
	fleet   *sim.Fleet
	devices map[string]*device
	open    []*passage // those that may have more reads to come, by time
	ids     map[string]*passage
	queue   queue
	events  uint64

	reads, sayings int // reads of the passages that were spoken of, and what was said of them
}

// New returns Traffic at its start, or an error that names the field at fault.
func New(cfg Config) (*Traffic, error) {
	for _, s := range []struct {
		name string
		v    float64
		most float64
	}{{"Misreads", cfg.Misreads, 0.4}, {"Outage", cfg.Outage, 0.9}, {"Skew", cfg.Skew, 1}, {"Retransmit", cfg.Retransmit, 1}} {
		if !(s.v >= 0 && s.v <= s.most) {
			return nil, fmt.Errorf("wire: Config.%s must be 0 to %g", s.name, s.most)
		}
	}
	if cfg.Rate == 0 {
		cfg.Rate = 100
	}
	if cfg.Sensors == 0 {
		cfg.Sensors = 20
	}
	switch {
	case !(cfg.Rate > 0 && cfg.Rate <= 100_000):
		return nil, errors.New("wire: Config.Rate must be more than 0 and at most 100000")
	case cfg.Sensors < 0 || cfg.Sensors > sim.MaxSensors:
		return nil, fmt.Errorf("wire: Config.Sensors must be 1 to %d", sim.MaxSensors)
	case cfg.Late < 0:
		return nil, errors.New("wire: Config.Late must not be negative")
	}
	if len(cfg.Formats) == 0 {
		for _, name := range Formats() {
			if !cfg.MQTT || name != Native {
				cfg.Formats = append(cfg.Formats, name)
			}
		}
	}
	for _, name := range cfg.Formats {
		switch {
		case !slices.Contains(Formats(), name):
			return nil, errors.New("wire: Config.Formats must be of " + strings.Join(Formats(), ", "))
		case cfg.MQTT && name == Native:
			return nil, errors.New("wire: Config.Formats: " + Native + " does not go through MQTT")
		}
	}
	if cfg.Start.IsZero() {
		cfg.Start = time.Date(2026, time.June, 1, 6, 0, 0, 0, time.UTC)
	}
	// How many messages there are for a read depends on the formats: a short run tells. It is
	// without faults, so that they do not change the traffic.
	calm := cfg
	calm.Outage, calm.Skew = 0, 0
	probe, err := start(calm, cfg.Rate)
	if err != nil {
		return nil, err
	}
	for probe.reads < 1000 {
		probe.next()
	}
	return start(cfg, cfg.Rate*float64(probe.reads)/float64(max(probe.sayings, 1)))
}

// start returns Traffic for so many reads per second.
func start(cfg Config, rate float64) (*Traffic, error) {
	from := cfg.Start.Add(-cfg.Late)
	misreads := cfg.Misreads
	if misreads == 0 {
		misreads = -1
	}
	fleet, err := sim.New(sim.Config{Seed: cfg.Seed, Sensors: cfg.Sensors, Rate: min(rate, 1e6), Start: from, MisreadShare: misreads})
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	t := &Traffic{cfg: cfg, fleet: fleet, devices: make(map[string]*device), ids: make(map[string]*passage)}
	for i, s := range fleet.Sensors() {
		d := &device{
			Sensor: s, vendor: byName(cfg.Formats[i%len(cfg.Formats)]), n: i, mqtt: cfg.MQTT,
			dice: sim.NewDice(cfg.Seed + uint64(i)*0x9e3779b97f4a7c15), until: from,
		}
		// The habits of two devices of a vendor are not the same.
		turn := i / len(cfg.Formats)
		d.pictures, d.away = turn%2 == 1, turn%4 < 2
		if d.dice.Chance(cfg.Skew) {
			d.clock = time.Duration(d.dice.Between(1000, 90_000)) * time.Millisecond
			if d.dice.Chance(0.5) {
				d.clock = -d.clock
			}
		}
		d.outage(cfg.Outage, from)
		if d.vendor.beat != nil && cfg.Late == 0 {
			t.beat(d, d.after(from, 0, int(beatEvery.Milliseconds())))
		}
		t.devices[s.ID] = d
	}
	return t, nil
}

func byName(name string) *vendor {
	i := slices.IndexFunc(vendors, func(v vendor) bool { return v.name == name })
	return &vendors[i]
}

// outage makes the outage the last that has not ended at a time.
func (d *device) outage(share float64, at time.Time) {
	for share > 0 && !at.Before(d.until) {
		up := float64(meanOutage) * (1 - share) / share
		d.from = d.until.Add(time.Duration(up * d.dice.Exp()))
		d.until = d.after(d.from, 2000, 8000)
	}
}

func (t *Traffic) push(e event) {
	e.n = t.events
	t.events++
	heap.Push(&t.queue, e)
}

func (t *Traffic) beat(d *device, at time.Time) {
	t.push(event{at: at, device: d, kind: beats, saying: d.vendor.beat(d, at)})
}

// Next returns the next message.
func (t *Traffic) Next() Message {
	for {
		e := t.next()
		d := e.device
		if e.kind == beats {
			t.beat(d, e.at.Add(beatEvery))
		}
		if e.kind == returns {
			for i, k := range d.kept {
				k.at, k.late = e.at.Add(time.Duration(i)*drainEvery), true
				t.push(k)
			}
			d.kept = nil
			continue
		}
		d.outage(t.cfg.Outage, e.at)
		if t.cfg.Outage > 0 && !e.at.Before(d.from) {
			if e.kind == says {
				t.keep(d, e)
			}
			continue // nobody misses a heartbeat or a repeat
		}
		if e.kind == repeats {
			return e.message
		}
		m := t.message(d, &e)
		if e.kind == says && t.cfg.Retransmit > 0 && d.dice.Chance(t.cfg.Retransmit) {
			again := m
			at := d.after(e.at, 200, 3000)
			again.Again, again.First, again.Due = true, false, at.Add(t.cfg.Late)
			t.push(event{at: at, device: d, kind: repeats, message: again})
		}
		return m
	}
}

// keep puts a message aside until the link is back.
func (t *Traffic) keep(d *device, e event) {
	if len(d.kept) == 0 {
		t.push(event{at: d.until, device: d, kind: returns})
	}
	if len(d.kept) == maxKept {
		d.kept = slices.Delete(d.kept, 0, 1)
	}
	d.kept = append(d.kept, e)
}

// Kept returns how many messages wait in devices whose link is away.
func (t *Traffic) Kept() int {
	n := 0
	for _, d := range t.devices {
		n += len(d.kept)
	}
	return n
}

// message writes down what a device says.
func (t *Traffic) message(d *device, e *event) Message {
	late := e.kind == says && (e.late || t.cfg.Late > 0)
	m := Message{
		Sensor: d.ID, Format: d.vendor.name, Due: e.at.Add(t.cfg.Late), Topic: e.saying.topic, ContentType: e.saying.contentType,
		Body: e.saying.body(late && d.vendor.flags), Read: e.saying.read, Passage: e.passage, First: e.first, Late: late,
	}
	if m.Read != nil && late && d.vendor.flags {
		m.Read.Retransmitted = true
	}
	if m.Path = "/v1/ingest/" + m.Format; m.Format == Native {
		m.Path = "/v1/reads"
	} else if m.Topic == "" {
		m.Topic = "vigie/" + m.Format + "/" + d.ID
	}
	if d.vendor.asks {
		m.Path += "?sensor=" + d.ID
	}
	return m
}

// next returns the next event. The fleet is ahead of it until no vehicle can say anything before.
func (t *Traffic) next() event {
	for len(t.open) == 0 || len(t.queue) == 0 || t.queue[0].at.After(t.open[0].steps[0].At) {
		step := t.fleet.Next()
		for len(t.open) > 0 && step.At.Sub(t.open[0].steps[0].At) > spread {
			t.say(t.open[0])
			delete(t.ids, t.open[0].id)
			t.open = t.open[1:]
		}
		p := t.ids[step.Read.Passage]
		if p == nil {
			d := t.devices[step.Read.Sensor]
			d.tracks++
			p = &passage{id: step.Read.Passage, track: d.tracks}
			t.ids[p.id] = p
			t.open = append(t.open, p)
		}
		p.steps = append(p.steps, step)
	}
	return heap.Pop(&t.queue).(event)
}

// say lets the device speak of a vehicle that has passed.
func (t *Traffic) say(p *passage) {
	d := t.devices[p.steps[0].Read.Sensor]
	t.reads += len(p.steps)
	at := p.steps[0].At
	for i, s := range d.vendor.passage(d, p) {
		t.sayings++
		if at.Before(s.at) { // a device says one thing after the other
			at = s.at
		}
		t.push(event{at: at, device: d, kind: says, saying: s, passage: p.id, first: i == 0})
	}
}

// queue is a heap of events by time.
type queue []event

func (q queue) Len() int { return len(q) }

func (q queue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].n < q[j].n
}

func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

func (q *queue) Push(x any) { *q = append(*q, x.(event)) }

func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}
