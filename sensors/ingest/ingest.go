// Package ingest takes in messages as sensors write them: it has them decoded, finds out which
// tell something new of a passing vehicle, has their pictures stored, and hands the reads to
// the gateway. It is the one way in for HTTP, MQTT and whatever else brings messages.
//
// It keeps no message: one that could not be stored is for its sender to send again.
package ingest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vigie/sensors"
	"vigie/sensors/format"
	"vigie/sensors/passage"
	"vigie/watchlist/plate"
)

// Gateway takes reads in; *sensors.Gateway is one.
type Gateway interface {
	// Accept stores the reads that are in order and names the others. After an error it is
	// unknown which reads are stored.
	Accept(ctx context.Context, reads []sensors.Read, opts sensors.AcceptOptions) (sensors.Result, error)
	// Heartbeat takes note that a sensor is alive.
	Heartbeat(sensor string, at time.Time)
}

// Profiles says how the messages of sensors are to be read.
type Profiles interface {
	// Profile returns the profile of a sensor; ok is false when it is not registered. It is
	// asked once for each name in a message.
	Profile(sensor string) (p sensors.Profile, ok bool)
}

// Pictures stores the pictures of reads.
type Pictures interface {
	// Store stores what it can of the pictures of a read, either of which may be empty, and
	// says where; nil for a picture that is not stored. A picture that is no picture is one
	// that is not stored. It should return when ctx ends; nobody waits for it any longer.
	Store(ctx context.Context, readID string, plate, context []byte) (plateAt, contextAt *sensors.Image)
}

// Config configures New.
type Config struct {
	Gateway Gateway // required
	// Decode reads a message; format.Decode when nil. Its errors hold nothing of the message.
	Decode   func(name string, in format.Input) (sensors.Message, error)
	Passages *passage.Tracker // required
	Profiles Profiles         // nil when no sensor is registered
	Pictures Pictures         // nil when pictures are not kept
	// PictureWait is how long the reads of a message wait for their pictures; 50 ms when 0.
	// The pictures not stored by then are lost, for a hit is worth more than its picture.
	PictureWait time.Duration
	// PicturesAtOnce bounds the messages whose pictures are being stored, late ones too; 32
	// when 0. The pictures of others are lost.
	PicturesAtOnce int
	// PicturesAway reports whether pictures cannot be stored for now, as while Kafka is away;
	// nil for never. It must answer at once. Pictures, unlike reads, are not spooled: those of
	// messages that come meanwhile are lost without a wait.
	PicturesAway func() bool
	Clock        func() time.Time // time.Now when nil
}

// stripes is how many groups of sensors there are, whose messages wait for one another.
const stripes = 1024

// Ingester takes messages in. Its methods may be called at the same time. Messages of one sensor
// are stored one after the other; whoever needs them in an order calls for one at a time.
type Ingester struct {
	cfg      Config
	seed     maphash.Seed
	order    [stripes]chan struct{} // full while a message of a sensor of the group is in work
	pictures chan struct{}          // has one element for each call of Store
	late     sync.WaitGroup         // of those calls

	messages, heartbeats, garbled, unknownFormat, undecodable, failed, picturesLost atomic.Uint64
}

// Stats are counts of an Ingester since it was made.
type Stats struct {
	Messages   uint64 // taken in, whatever became of their reads
	Heartbeats uint64 // among them
	// Garbled counts reads of them that were rejected because they could not be decoded; the
	// gateway, which counts other rejections, does not see them.
	Garbled uint64
	// UnknownFormat and Undecodable count messages refused for good.
	UnknownFormat, Undecodable uint64
	// Failed counts messages that could not be stored; their senders were told to come again.
	Failed uint64
	// PicturesLost counts forwarded reads that go without a picture they came with: it was
	// none, or storing it failed, took too long or was not tried since pictures were away.
	PicturesLost uint64
	// Passages says which sightings were forwarded and which suppressed.
	Passages passage.Stats
}

// New returns an Ingester, or an error that names what cfg lacks.
func New(cfg Config) (*Ingester, error) {
	switch {
	case cfg.Gateway == nil:
		return nil, errors.New("ingest: Config.Gateway is required")
	case cfg.Passages == nil:
		return nil, errors.New("ingest: Config.Passages is required")
	case cfg.PictureWait < 0, cfg.PicturesAtOnce < 0:
		return nil, errors.New("ingest: Config.PictureWait and PicturesAtOnce must not be negative")
	}
	cfg.PictureWait = cmp.Or(cfg.PictureWait, 50*time.Millisecond)
	cfg.PicturesAtOnce = cmp.Or(cfg.PicturesAtOnce, 32)
	if cfg.Decode == nil {
		cfg.Decode = format.Decode
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	in := &Ingester{cfg: cfg, seed: maphash.MakeSeed(), pictures: make(chan struct{}, cfg.PicturesAtOnce)}
	for i := range in.order {
		in.order[i] = make(chan struct{}, 1)
	}
	return in, nil
}

// Close waits for pictures that are still being stored although nobody waits for them any
// longer. It is called after the last Ingest.
func (in *Ingester) Close() { in.late.Wait() }

// Stats returns the counts so far.
func (in *Ingester) Stats() Stats {
	return Stats{
		Messages: in.messages.Load(), Heartbeats: in.heartbeats.Load(), Garbled: in.garbled.Load(), UnknownFormat: in.unknownFormat.Load(),
		Undecodable: in.undecodable.Load(), Failed: in.failed.Load(), PicturesLost: in.picturesLost.Load(),
		Passages: in.cfg.Passages.Stats(),
	}
}

// Ingest takes a message in. What it reports as accepted is stored safely.
//
// The sensor of a message is the one that the sender may speak for. Who may speak for all tells
// it in the message or, when that names none, as m.Source. A device whose sender may speak for
// one sensor only may call itself as it likes, since devices come with names of their own, but
// not by the name of another registered sensor: such a read is rejected.
//
// The error is ErrFormat or ErrMessage when the message is at fault and sending it again is of no
// use. After any other it must be sent again; its reads have the same ids then, so that those which
// were stored all the same do no harm.
func (in *Ingester) Ingest(ctx context.Context, m Message) (Result, error) {
	now := in.cfg.Clock()
	known := registry{of: in.cfg.Profiles}
	msg, err := in.decode(&m, &known, now)
	switch {
	case errors.Is(err, format.ErrFormat):
		in.unknownFormat.Add(1)
		return Result{}, fmt.Errorf("%w: %w", ErrFormat, err)
	case err != nil:
		in.undecodable.Add(1)
		return Result{}, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	res, err := in.take(ctx, &m, &msg, &known, now)
	switch {
	case errors.Is(err, sensors.ErrTooManyReads):
		in.undecodable.Add(1)
		return Result{}, fmt.Errorf("%w: %w", ErrMessage, err)
	case err != nil:
		in.failed.Add(1)
		return Result{}, fmt.Errorf("ingest: %w", err)
	}
	in.messages.Add(1)
	in.garbled.Add(uint64(len(msg.Rejected)))
	if msg.Heartbeat {
		in.heartbeats.Add(1)
	}
	return res, nil
}

// decode decodes m by the profile of its sensor, which may be known only afterwards: then it is
// decoded again.
func (in *Ingester) decode(m *Message, known *registry, now time.Time) (sensors.Message, error) {
	try := func(p sensors.Profile) (sensors.Message, error) {
		return in.cfg.Decode(m.Format, format.Input{ContentType: m.ContentType, Topic: m.Topic, Body: m.Body, Profile: p, Received: now})
	}
	asked := cmp.Or(m.Sensor, m.Source)
	p, _ := known.profile(asked)
	msg, err := try(p)
	if err != nil || m.Sensor != "" {
		return msg, err
	}
	name := msg.Sensor
	if name == "" && len(msg.Sightings) > 0 {
		name = msg.Sightings[0].Read.Sensor
	}
	if name != "" && name != asked {
		if own, _ := known.profile(name); own != p {
			return try(own)
		}
	}
	return msg, nil
}

// registry answers for the sensors that one message names.
type registry struct {
	of    Profiles // nil for none
	found map[string]found
}

// found is an answer of Profiles.
type found struct {
	sensors.Profile
	ok bool
}

func (r *registry) profile(sensor string) (p sensors.Profile, ok bool) {
	if sensor == "" || r.of == nil {
		return p, false
	}
	f, asked := r.found[sensor]
	if !asked {
		f.Profile, f.ok = r.of.Profile(sensor)
		if r.found == nil {
			r.found = make(map[string]found)
		}
		r.found[sensor] = f
	}
	return f.Profile, f.ok
}

// sensor is the id of the sensor that m, or a read of it, calls name.
func (r *registry) sensor(m *Message, name string) string {
	switch {
	case m.Sensor == "":
		return cmp.Or(name, m.Source)
	case name == "", name == m.Sensor:
		return m.Sensor
	}
	if _, ok := r.profile(name); ok {
		return name
	}
	return m.Sensor
}

// take takes in a message that is decoded.
func (in *Ingester) take(ctx context.Context, m *Message, msg *sensors.Message, known *registry, now time.Time) (Result, error) {
	whole := known.sensor(m, msg.Sensor)
	foreign := m.Sensor != "" && whole != m.Sensor
	for i := range msg.Sightings {
		r := &msg.Sightings[i].Read
		r.Sensor = known.sensor(m, cmp.Or(r.Sensor, msg.Sensor))
	}
	release, err := in.turn(ctx, msg.Sightings)
	if err != nil {
		return Result{}, err
	}
	defer release()

	j := in.judge(m, msg, now)
	in.storePictures(ctx, msg.Sightings, j)
	var told sensors.Result
	if len(j.reads) > 0 {
		if told, err = in.cfg.Gateway.Accept(ctx, j.reads, sensors.AcceptOptions{Sensor: m.Sensor}); err != nil {
			if !errors.Is(err, sensors.ErrTooManyReads) { // then none is stored
				j.tx.Abandon()
			}
			return Result{}, err
		}
	}
	commit := true
	for i := range told.Rejected {
		rej := &told.Rejected[i]
		// A passage does not count reads that nobody got. The others of the message are stored,
		// so that their revisions must not be given again.
		commit = commit && !j.judged[rej.Index]
		rej.Index = j.at[rej.Index]
	}
	if commit {
		j.tx.Commit()
	} else {
		j.tx.Abandon()
	}
	res := Result{
		Accepted: told.Accepted - told.Quarantined, Quarantined: told.Quarantined, Rejected: told.Merge(msg.Rejected).Rejected,
		Suppressed: len(msg.Sightings) - len(j.reads), Heartbeat: msg.Heartbeat,
	}
	if (msg.Heartbeat || res.Suppressed > 0) && !foreign { // who repeats itself is alive too
		sensor := whole
		if sensor == "" && len(msg.Sightings) > 0 {
			sensor = msg.Sightings[0].Read.Sensor
		}
		in.cfg.Gateway.Heartbeat(sensor, now)
	}
	return res, nil
}

// judgement says which reads of a message go to the gateway. Its slices go together.
type judgement struct {
	tx     *passage.Tx
	reads  []sensors.Read
	at     []int              // their places in the message
	judged []bool             // whether the read has a decision; those that will be rejected have none
	what   []passage.Decision // the decisions
}

// judge leaves out the sightings that tell nothing new. Reads that are not in order go to the
// gateway, which counts and rejects them.
func (in *Ingester) judge(m *Message, msg *sensors.Message, now time.Time) *judgement {
	j := &judgement{tx: in.cfg.Passages.Begin(now, msg.Sightings...)}
	away := in.cfg.Pictures != nil && in.cfg.PicturesAway != nil && in.cfg.PicturesAway()
	for i := range msg.Sightings {
		s := &msg.Sightings[i]
		var d passage.Decision
		judged := (m.Sensor == "" || s.Read.Sensor == m.Sensor) && inOrder(&s.Read)
		if judged {
			pictured := away && len(s.Plate)+len(s.Context) > 0
			if pictured {
				s.Plate, s.Context = nil, nil // they are no news, and later ones are
			}
			if d = j.tx.Decide(s); !d.Forward() {
				continue
			}
			if pictured {
				in.picturesLost.Add(1)
			}
			s.Read.ID, s.Read.Passage, s.Read.Revision = d.ID, d.Passage, d.Revision
		}
		j.reads = append(j.reads, s.Read)
		j.at = append(j.at, i)
		j.judged = append(j.judged, judged)
		j.what = append(j.what, d)
	}
	return j
}

// inOrder reports whether a gateway would take r.
func inOrder(r *sensors.Read) bool {
	if r.Check() != nil {
		return false
	}
	_, err := r.Key()
	return err == nil || errors.Is(err, plate.ErrSentinel)
}

// turn waits until no other message of the sensors of these sightings is in work.
func (in *Ingester) turn(ctx context.Context, ss []sensors.Sighting) (release func(), err error) {
	var groups []int // by rising number, so that two messages never wait for each other
	for i := range ss {
		if i == 0 || ss[i].Read.Sensor != ss[i-1].Read.Sensor {
			groups = append(groups, int(maphash.String(in.seed, ss[i].Read.Sensor)%stripes))
		}
	}
	slices.Sort(groups)
	groups = slices.Compact(groups)
	held := 0
	release = func() {
		for _, g := range groups[:held] {
			<-in.order[g]
		}
	}
	for _, g := range groups {
		select {
		case in.order[g] <- struct{}{}:
			held++
		case <-ctx.Done():
			release()
			return nil, fmt.Errorf("wait for earlier messages of the sensor: %w", ctx.Err())
		}
	}
	return release, nil
}

// storePictures stores the pictures of the reads that go to the gateway, before these since they
// say where their pictures are.
func (in *Ingester) storePictures(ctx context.Context, ss []sensors.Sighting, j *judgement) {
	if in.cfg.Pictures == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, in.cfg.PictureWait)
	defer cancel()
	for k := range j.reads {
		r, s := &j.reads[k], &ss[j.at[k]]
		if !j.judged[k] || len(s.Plate)+len(s.Context) == 0 {
			continue
		}
		plateAt, contextAt := in.store(ctx, r.ID, s.Plate, s.Context)
		if plateAt != nil {
			r.Image = plateAt
		}
		if contextAt != nil {
			r.Context = contextAt
		}
		if len(s.Plate) > 0 && plateAt == nil || len(s.Context) > 0 && contextAt == nil {
			in.picturesLost.Add(1)
		}
		if r.Image == nil && r.Context == nil {
			j.what[k].PicturesLost()
		}
	}
}

// store calls Pictures.Store and waits for it until ctx ends.
func (in *Ingester) store(ctx context.Context, id string, plate, scene []byte) (plateAt, contextAt *sensors.Image) {
	select {
	case in.pictures <- struct{}{}:
	default:
		return nil, nil
	}
	plate, scene = slices.Clone(plate), slices.Clone(scene) // it may go on after Ingest has returned
	type where struct{ plate, context *sensors.Image }
	done := make(chan where, 1)
	in.late.Go(func() {
		defer func() { <-in.pictures }()
		p, c := in.cfg.Pictures.Store(ctx, id, plate, scene)
		done <- where{p, c}
	})
	select {
	case w := <-done:
		return w.plate, w.context
	case <-ctx.Done():
		return nil, nil
	}
}
