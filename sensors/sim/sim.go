// Package sim is a fleet of simulated sensors beside French motorways, for the
// demo and for load tests. It yields reads in time order together with the truth
// that no real sensor knows: which plate was on the car.
//
// It is a stand-in for traffic, not a model of it: roads, travel times, plates
// and misreads look right to a person and are right in the proportions that
// matter to a matcher (see Config). Nothing in it is a real vehicle, and its only
// source of chance is the seed: it reads no clock and no network, and the same
// Config gives the same steps for ever.
package sim

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"vigie/sensors"
	"vigie/watchlist/plate"
)

// Config configures New. The zero value of every field is a good default; where
// a share can be left out altogether, a negative value does so.
type Config struct {
	Seed    uint64
	Sensors int     // devices, 24 when 0, at most MaxSensors
	Rate    float64 // reads per second over the whole fleet, 2,000 when 0
	// Start is the time of the first read. The hours of RushHours are those of its
	// location. 1 June 2026, 06:00 UTC when zero.
	Start time.Time
	// RushHours lets the rate rise and fall over the day, to a tenth at night and
	// nearly twice in the evening, with Rate as the mean.
	RushHours bool
	// Wanted are the plates that some of the cars carry, and WantedShare is the
	// share of all reads that are of such cars: 0.001 when 0, which makes 40 among
	// the reads of 20 seconds at the default rate. Every plate is used once before
	// the first comes again.
	Wanted      []Wanted
	WantedShare float64
	// TwinShare is the share of reads of cars that carry the text of a wanted plate
	// under the plate of another country, and must not be stopped: 0.0002 when 0.
	TwinShare float64
	// MisreadShare is the share of wrong reads, 0.06 when 0. The reads that the
	// kinds of error were learnt from are wrong far more often, 41 in 100, because
	// they were made hard on purpose; cameras that are well placed do better.
	MisreadShare float64
	// NoCountryShare is the share of reads whose sensor did not tell the country,
	// 0.1 when 0. SentinelShare is that of reads of "unknown", 0.005 when 0.
	NoCountryShare, SentinelShare float64
}

// Wanted is a plate that a simulated car carries.
type Wanted struct {
	Plate   string        // as plate.Parse takes it
	Country plate.Country // 0 stands for FR
}

// MaxSensors is the largest fleet: one sensor per kilometre and direction.
var MaxSensors = maxSensors

// Step is one read and the truth behind it.
type Step struct {
	At    time.Time    // virtual time of the read, to the microsecond; never before the step before
	Read  sensors.Read // complete, and owned by the caller
	Truth Truth
}

// Truth is what was really there.
type Truth struct {
	Plate    string        // on the car, A-Z and 0-9
	Country  plate.Country // that issued it
	Wanted   bool          // the car was injected to carry one of Config.Wanted
	Misread  bool          // Read.Plate is another plate than Plate
	Sentinel bool          // Read.Plate says that there was none
}

// Fleet yields steps. It is not safe for concurrent use.
type Fleet struct {
	cfg     Config
	rng     rng
	sensors []Sensor
	devices []device // by sensor
	chains  []chain
	weights []uint32 // of chains, for new trips
	total   uint32   // of weights
	pairs   int      // of French plates, see pairs
	wanted  []vehicle
	order   []int // of wanted, reshuffled when used up
	used    int   // of order

	slot  float64 // microseconds since Start: the moment at which a read is due
	day   float64 // microseconds from midnight to Start
	queue queue   // reads to come of trips under way
	trips []trip
	free  []uint32 // unused trips
	count uint64   // steps so far
}

// device is how a sensor of some make behaves.
type device struct {
	factor     float64 // of its misreads: some stand badly
	dashes     bool    // writes AB-123-CD
	lower      bool    // writes ab123cd
	alpha3     bool    // writes FRA
	candidates bool    // tells other readings
	charConf   bool    // tells the confidence per character
	looks      bool    // tells make and color
	repeats    float64 // share of passages of which it sends two or three reads
	sentinel   string  // what it says without a plate
}

// trip is a vehicle on its way.
type trip struct {
	vehicle vehicle
	chain   int
	at      int // position in the chain
	last    int // position after which the vehicle leaves the road
	speed   float64
	lane    uint32
	passage string
	left    int // reads of the present passage still to come
	wanted  bool
}

// maxUnderWay bounds the vehicles that have a further sensor to pass, and thereby
// the memory. At rates no road has ever seen the others take the next exit.
const maxUnderWay = 1 << 17

// New returns a fleet at its start, or an error that names the field at fault and
// no plate.
func New(cfg Config) (*Fleet, error) {
	for _, d := range []struct {
		name     string
		v        *float64
		fallback float64
		most     float64
	}{
		{"Rate", &cfg.Rate, 2000, 1e6},
		{"WantedShare", &cfg.WantedShare, 0.001, 1},
		{"TwinShare", &cfg.TwinShare, 0.0002, 1},
		{"MisreadShare", &cfg.MisreadShare, 0.06, 0.4},
		{"NoCountryShare", &cfg.NoCountryShare, 0.1, 1},
		{"SentinelShare", &cfg.SentinelShare, 0.005, 1},
	} {
		switch {
		case *d.v == 0:
			*d.v = d.fallback
		case !(*d.v <= d.most) || d.name == "Rate" && *d.v < 0:
			return nil, fmt.Errorf("sim: Config.%s must be at most %g", d.name, d.most)
		}
		*d.v = max(*d.v, 0)
	}
	if cfg.Sensors == 0 {
		cfg.Sensors = 24
	}
	if cfg.Sensors < 0 || cfg.Sensors > MaxSensors {
		return nil, fmt.Errorf("sim: Config.Sensors must be 1 to %d", MaxSensors)
	}
	if cfg.Start.IsZero() {
		cfg.Start = time.Date(2026, time.June, 1, 6, 0, 0, 0, time.UTC)
	}
	f := &Fleet{cfg: cfg, rng: rng(mix64(cfg.Seed)), pairs: pairs(cfg.Start)}
	f.day = float64(cfg.Start.Hour()*3600+cfg.Start.Minute()*60+cfg.Start.Second()) * 1e6
	f.sensors, f.chains = build(spots(cfg.Sensors))
	for i := range f.sensors {
		f.devices = append(f.devices, f.newDevice(i))
	}
	f.level()
	for _, c := range f.chains {
		f.weights = append(f.weights, uint32(1000*c.road.traffic*float64(len(c.sensors))))
	}
	f.total = sum(f.weights)
	for i, w := range cfg.Wanted {
		key, err := plate.Parse(w.Plate)
		if err != nil {
			return nil, fmt.Errorf("sim: Config.Wanted[%d]: %w", i, err)
		}
		if w.Country == 0 {
			w.Country = france
		}
		r := rng(mix64(cfg.Seed ^ uint64(key)))
		f.wanted = append(f.wanted, vehicle{
			plate: key.String(), country: w.Country,
			make: carMakes[r.intn(len(carMakes))], color: colors[r.intn(len(colors))],
		})
		f.order = append(f.order, i)
	}
	f.used = len(f.order)
	if len(f.wanted) == 0 {
		f.cfg.WantedShare, f.cfg.TwinShare = 0, 0
	}
	if f.cfg.WantedShare+f.cfg.TwinShare > 1 {
		return nil, errors.New("sim: Config.WantedShare and Config.TwinShare must not be above 1 together")
	}
	return f, nil
}

var (
	france, _ = plate.ParseCountry("FR")
	italy, _  = plate.ParseCountry("IT")
)

// newDevice says how sensor i behaves. Its habits go by i, so that even a small
// fleet has all of them; how well it stands and how often it repeats itself are
// drawn.
func (f *Fleet) newDevice(i int) device {
	r := &f.rng
	return device{
		factor:     0.5 + 1.5*r.float()*r.float(),
		dashes:     i%5 == 3,
		lower:      i%10 == 6,
		alpha3:     i%5 == 4,
		candidates: i%10 == 2 || i%10 == 5 || i%10 == 8,
		charConf:   i%10 == 1 || i%10 == 5 || i%10 == 7,
		looks:      i%5 != 0,
		repeats:    0.3 * r.float(),
		sentinel:   []string{"unknown", "NO PLATE", "", "UNKNOWN"}[i%4],
	}
}

// level makes the mean of the factors, weighted by traffic, 1, so that the share
// of misreads is the one asked for.
func (f *Fleet) level() {
	var total, weight float64
	for _, c := range f.chains {
		for _, s := range c.sensors {
			total += c.road.traffic * f.devices[s].factor
			weight += c.road.traffic
		}
	}
	for i := range f.devices {
		f.devices[i].factor *= weight / total
	}
}

// Sensors returns the devices of the fleet, in an order that does not depend on
// the seed. The first n of a larger fleet are those of a fleet of n.
func (f *Fleet) Sensors() []Sensor { return slices.Clone(f.sensors) }

// Next returns the next read. Reads come at the given rate from the first one on:
// each is the next of a vehicle under way when one is due, else a vehicle that
// enters the road.
func (f *Fleet) Next() Step {
	f.slot += f.interval()
	now := int64(f.slot)
	var e event
	if len(f.queue) > 0 && f.queue[0].at <= now {
		e = f.queue.pop()
	} else {
		e = event{now, f.enter(now)}
	}
	t := &f.trips[e.trip]
	step := f.read(t, e.at)
	f.count++
	switch t.left--; {
	case t.left > 0:
		f.queue.push(event{e.at + int64(f.rng.between(40_000, 250_000)), e.trip})
	case t.at < t.last:
		km := f.chains[t.chain].km
		hours := (km[t.at+1] - km[t.at]) / (t.speed * (1 + 0.02*f.rng.normal()))
		t.at++
		at := e.at + max(int64(hours*3600e6), 1)
		f.pass(t, at)
		f.queue.push(event{at, e.trip})
	default:
		*t = trip{}
		f.free = append(f.free, e.trip)
	}
	return step
}

// interval is the time to the next read, in microseconds.
func (f *Fleet) interval() float64 {
	rate := f.cfg.Rate
	if f.cfg.RushHours {
		hour, part := math.Modf(math.Mod(f.day+f.slot, 24*3600e6) / 3600e6)
		rate *= dayShape[int(hour)]*(1-part) + dayShape[(int(hour)+1)%24]*part
	}
	return f.rng.exp() * 1e6 / rate
}

// dayShape is the traffic at each hour; its mean is 1.
var dayShape = [24]float64{
	0.20, 0.12, 0.10, 0.12, 0.25, 0.60, 1.13, 1.70, 1.75, 1.40, 1.23, 1.23,
	1.23, 1.28, 1.28, 1.38, 1.65, 1.90, 1.80, 1.33, 0.90, 0.65, 0.45, 0.32,
}

// enter puts a vehicle on the road and returns its trip.
func (f *Fleet) enter(at int64) uint32 {
	r := &f.rng
	var i uint32
	if n := len(f.free); n > 0 {
		i, f.free = f.free[n-1], f.free[:n-1]
	} else {
		i = uint32(len(f.trips))
		f.trips = append(f.trips, trip{})
	}
	t := &f.trips[i]
	t.chain = r.weighted(f.weights, f.total)
	c := &f.chains[t.chain]
	switch kind := r.float(); {
	case kind < f.cfg.WantedShare:
		t.vehicle, t.wanted = f.nextWanted(), true
	case kind < f.cfg.WantedShare+f.cfg.TwinShare:
		t.vehicle = f.nextWanted()
		if t.vehicle.country == france {
			t.vehicle.country = italy // the plates of both have the same shape
		} else {
			t.vehicle.country = france
		}
	default:
		// A road has two million vehicles; half of the trips are of the tenth that
		// drives often.
		const population = 2_000_000
		n := population
		if r.chance(0.5) {
			n /= 10
		}
		seed := mix64(f.cfg.Seed+uint64(c.road.sites[0].km)) ^ uint64(r.intn(n))
		t.vehicle = vehicleOf(mix64(seed), c.road, f.pairs)
	}
	t.at = r.intn(len(c.sensors))
	t.last = t.at
	if len(f.queue) < maxUnderWay {
		for t.last < len(c.sensors)-1 && r.chance(0.65) {
			t.last++
		}
	}
	t.speed = c.road.limit*0.93 + 9*r.normal()
	if t.vehicle.truck {
		t.speed = min(c.road.limit, 87) + 3*r.normal()
	}
	f.pass(t, at)
	return i
}

// nextWanted returns the wanted plates in random order, each once a round.
func (f *Fleet) nextWanted() vehicle {
	if f.used == len(f.order) {
		for i := len(f.order) - 1; i > 0; i-- {
			j := f.rng.intn(i + 1)
			f.order[i], f.order[j] = f.order[j], f.order[i]
		}
		f.used = 0
	}
	f.used++
	return f.wanted[f.order[f.used-1]]
}

// pass begins the passage of t at the sensor where it is.
func (f *Fleet) pass(t *trip, at int64) {
	r := &f.rng
	s := f.chains[t.chain].sensors[t.at]
	t.left = 1
	if r.chance(f.devices[s].repeats) {
		t.left = r.between(2, 3)
	}
	t.lane = 1
	switch {
	case t.vehicle.truck:
	case r.chance((t.speed - 90) / 60):
		t.lane = 2
		if r.chance(0.15) {
			t.lane = 3
		}
	}
	// The place of this passage among all of the fleet makes the id unique.
	b := append(make([]byte, 0, 48), f.sensors[s].ID...)
	b = strconv.AppendInt(append(b, ':'), f.millis(at), 36)
	b = strconv.AppendUint(append(b, ':'), f.count, 36)
	t.passage = string(b)
}

func (f *Fleet) millis(at int64) int64 {
	return f.cfg.Start.Add(time.Duration(at) * time.Microsecond).UnixMilli()
}

// read makes the read of t at the sensor where it is.
func (f *Fleet) read(t *trip, at int64) Step {
	r := &f.rng
	s := f.chains[t.chain].sensors[t.at]
	d := &f.devices[s]
	when := f.cfg.Start.Add(time.Duration(at) * time.Microsecond)
	step := Step{At: when, Truth: Truth{Plate: t.vehicle.plate, Country: t.vehicle.country, Wanted: t.wanted}}
	read := &step.Read
	read.Sensor = f.sensors[s].ID
	read.TS = when.UnixMilli()
	read.ID = f.id(read.TS)
	read.Passage = t.passage
	read.Lane = t.lane
	read.Direction = f.sensors[s].Direction
	read.Speed = float32(math.Round(10*t.speed*(1+0.02*r.normal())) / 10)
	if d.looks {
		read.Make, read.Color = t.vehicle.make, t.vehicle.color
	}
	if r.chance(f.cfg.SentinelShare) {
		read.Plate = d.sentinel
		step.Truth.Sentinel = true
		return step
	}
	text, edits, doubt := t.vehicle.plate, 0, uint16(0)
	if r.chance(f.cfg.MisreadShare * d.factor) {
		text, edits, doubt = misread(r, text)
		step.Truth.Misread = true
	}
	read.Conf = round3(confidence(r, edits))
	if d.charConf {
		read.CharConf = make([]float32, len(text))
		for i := range read.CharConf {
			c := read.Conf + (1-read.Conf)*float32(r.float())
			if doubt>>i&1 == 1 {
				c *= 0.4 + 0.5*float32(r.float())
			}
			read.CharConf[i] = round3(c)
		}
	}
	if d.candidates && (edits > 0 || r.chance(0.2)) {
		read.Candidates = f.otherReadings(t.vehicle.plate, text, read.Conf)
	}
	read.Plate = d.write(text, t.vehicle.country)
	if !r.chance(f.cfg.NoCountryShare) {
		read.Country = t.vehicle.country.String()
		if long := alpha3[read.Country]; d.alpha3 && long != "" {
			read.Country = long
		}
	}
	return step
}

// otherReadings returns one to three plates that the sensor thought less likely
// than text. Half of the time the right one is among them when text is wrong; how
// often real sensors manage that has not been counted.
func (f *Fleet) otherReadings(truth, text string, conf float32) []sensors.Candidate {
	r := &f.rng
	out := make([]sensors.Candidate, 0, 3)
	for range r.between(1, 3) {
		other := truth
		if other == text || len(out) > 0 || r.chance(0.5) {
			other, _, _ = misread(r, text)
		}
		conf *= 0.3 + 0.5*float32(r.float())
		out = append(out, sensors.Candidate{Plate: other, Conf: round3(conf)})
	}
	return out
}

// write puts a plate the way the device does. Only French dashes are known to it.
func (d *device) write(text string, country plate.Country) string {
	if !d.dashes && !d.lower {
		return text
	}
	b := make([]byte, 0, len(text)+2)
	dashes := d.dashes && country == france && len(text) == 7
	for i := range len(text) {
		if dashes && (i == 2 || i == 5) {
			b = append(b, '-')
		}
		c := text[i]
		if d.lower && c >= 'A' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return string(b)
}

// alpha3 has the countries of roads and trucks.
var alpha3 = map[string]string{
	"FR": "FRA", "BE": "BEL", "CH": "CHE", "DE": "DEU", "ES": "ESP", "GB": "GBR", "IT": "ITA", "LU": "LUX",
	"NL": "NLD", "PL": "POL", "PT": "PRT",
}

// id returns a ULID: 48 bits of time and 80 bits of chance in Crockford's base32.
func (f *Fleet) id(millis int64) string {
	const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var b [26]byte
	for i := range 10 {
		b[9-i] = crockford[millis>>(5*i)&31]
	}
	hi, lo := f.rng.next(), f.rng.next()
	for i := range 8 {
		b[10+i] = crockford[hi>>(5*i)&31]
		b[18+i] = crockford[lo>>(5*i)&31]
	}
	return string(b[:])
}

func round3(v float32) float32 { return float32(math.Round(float64(v)*1000) / 1000) }
