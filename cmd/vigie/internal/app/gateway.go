package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"vigie/cmd/vigie/internal/config"
	"vigie/cmd/vigie/internal/httpapi"
	"vigie/cmd/vigie/internal/metrics"
	"vigie/sensors"
	"vigie/sensors/format"
	"vigie/sensors/ingest"
	"vigie/sensors/mqtt"
	"vigie/sensors/passage"
	"vigie/sensors/picture"
	"vigie/sensors/spool"
	"vigie/stream"
	"vigie/stream/kafka"
	"vigie/watchlist/control"
)

// gateway makes the parts that take reads in.
func (a *App) gateway(hc *httpapi.Config, reg *metrics.Registry) error {
	publisher, err := a.publisher(reg)
	if err != nil {
		return err
	}
	known := a.registry()
	a.known = known
	sc := sensors.Config{
		Publisher: publisher, Unknown: a.cfg.Gateway.UnknownSensors, Quarantine: a.kafka.Quarantine(),
		// While the registry is not known nobody is a stranger.
		Known: func(id string) bool { return !known.CaughtUp() || known.Sensor(id) != nil },
	}
	if a.spool != nil {
		sc.SpoolDepth = func() int64 { return int64(a.spool.Stats().Depth) }
	}
	gw, err := sensors.New(sc)
	if err != nil {
		return err
	}
	pictures, err := picture.NewStore(picture.NewCleaner(picture.Config{}), a.kafka.Images())
	if err != nil {
		return err
	}
	passages, err := passage.New(passage.Config{})
	if err != nil {
		return err
	}
	in, err := ingest.New(ingest.Config{
		Gateway: gw, Passages: passages, Profiles: profiles{known},
		Pictures: pictures, PictureWait: 200 * time.Millisecond, // cleaning a scene takes 40 ms, and a processor may be busy with others
		PicturesAway: func() bool { return a.spooling != nil && a.spooling.Stats().Open },
	})
	if err != nil {
		return err
	}
	a.onClose("vendor messages", func() error { in.Close(); return nil })
	if m := a.cfg.Gateway.MQTT; m.URL != "" {
		sub, err := a.subscriber(m, in)
		if err != nil {
			return err
		}
		a.start("mqtt", sub.Run)
		reg.MQTT(sub)
	}
	hc.Gateway, hc.SensorHealth, hc.Ingest, hc.Formats = gw, gw, in, format.Names()
	reg.Gateway(gw)
	reg.Ingest(in)
	return nil
}

// publisher is where accepted reads go: to Kafka, and to the spool while that is away.
func (a *App) publisher(reg *metrics.Registry) (sensors.Publisher, error) {
	direct := a.kafka.Reads()
	c := a.cfg.Gateway.Spool
	if c.Dir == "" {
		return direct, nil
	}
	log := a.log.Named("spool")
	s, err := spool.Open(spool.Config{Dir: c.Dir, MaxBytes: c.MaxBytes, MaxAge: c.MaxAge, Reserve: c.Reserve, Log: log})
	if err != nil {
		return nil, fmt.Errorf("gateway.spool.dir: %w", err)
	}
	a.spool = s
	a.onClose("spool", s.Close)
	p, err := spool.NewPublisher(spool.PublisherConfig{
		Direct: direct, Spool: s, Log: log,
		Refused: func(err error) bool { return errors.Is(err, kafka.ErrTooLarge) },
	})
	if err != nil {
		return nil, err
	}
	a.spooling = p
	a.start("spool", p.Run)
	reg.Spool(s, p)
	return p, nil
}

// registry is what is known of sensors. A gateway alone follows the control log for nothing else.
func (a *App) registry() sensorRegistry {
	if a.replica != nil {
		return replicaSensors{a.replica}
	}
	file := ""
	if dir := a.cfg.Gateway.Spool.Dir; dir != "" {
		file = filepath.Join(dir, "sensors.registry")
	}
	r := stream.NewRegistry(file, func(err error) { a.log.Warn("the sensor registry cannot be followed", zap.Error(err)) })
	log := a.kafka.ControlLog()
	a.start("sensor registry", func(ctx context.Context) error { return r.Follow(ctx, log) })
	return r
}

// sensorRegistry answers for every run of reads, so it must never wait.
type sensorRegistry interface {
	Sensor(id string) *control.Sensor
	CaughtUp() bool
}

type replicaSensors struct{ *stream.Replica }

// Sensor does not wait for the replica, which may be applying an import.
func (r replicaSensors) Sensor(id string) *control.Sensor { return r.Matcher().Snapshot().Sensor(id) }

// profiles says how the messages of registered sensors are to be read.
type profiles struct{ sensorRegistry }

func (p profiles) Profile(id string) (sensors.Profile, bool) {
	s := p.Sensor(id)
	if s == nil {
		return sensors.Profile{}, false
	}
	out := sensors.Profile{Format: s.Format, Country: s.Country}
	// Words of a newer version, and zones that this machine does not have, leave it to the format.
	switch c := sensors.Clock(s.Clock); c {
	case sensors.ClockUTC, sensors.ClockLocal, sensors.ClockGateway:
		out.Clock = c
	}
	switch sc := sensors.Scale(s.Scale); sc {
	case sensors.ScaleUnit, sensors.ScalePercent:
		out.Scale = sc
	}
	if s.Zone != "" {
		out.Zone = zone(s.Zone)
	}
	return out, true
}

// zones are the time zones that were asked for, by name: finding one reads a file.
var zones sync.Map

func zone(name string) *time.Location {
	if z, ok := zones.Load(name); ok {
		return z.(*time.Location)
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		z = nil
	}
	zones.Store(name, z)
	return z
}

// subscriber takes messages from an MQTT broker.
func (a *App) subscriber(c config.MQTT, in *ingest.Ingester) (*mqtt.Subscriber, error) {
	tlsConfig, err := loadTLS(c.TLS, "gateway.mqtt.tls")
	if err != nil {
		return nil, err
	}
	mc := mqtt.Config{
		Servers: []string{c.URL}, ClientID: c.ClientID, Username: c.User, TLS: tlsConfig, Topics: c.Topics,
		Ingest: in, Log: a.log.Named("mqtt"),
	}
	if c.PasswordFile != "" {
		password, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("gateway.mqtt.password_file: %w", err)
		}
		mc.Password = strings.TrimRight(string(password), "\r\n")
	}
	sub, err := mqtt.New(mc)
	if err != nil {
		return nil, fmt.Errorf("gateway.mqtt: %w", err)
	}
	return sub, nil
}
