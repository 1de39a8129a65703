package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"

	"vigie/matcher/misread"
	"vigie/watchlist/plate"
)

// corpus is what is measured on.
type corpus struct {
	reads    []read
	vehicles []vehicle
	french   int // reads of French plates since 2009
	series   []series
}

// vehicle is a true plate.
type vehicle struct {
	key     plate.Key
	country plate.Country
	series  int  // number in corpus.series
	siv     bool // French, since 2009
}

// read is one reading of a vehicle.
type read struct {
	vehicle int
	key     plate.Key
	conf    float32
}

// series is one way in which the plates of a country are issued, and its share
// of the vehicles.
type series struct {
	country plate.Country
	form    int // of package plate, -1 when it describes none
	like    plate.Key
	places  []plate.Set
	size    float64 // plates that can be issued
	share   float64
}

// siv is the series of French plates since 2009.
var siv = func() int {
	fr, _ := plate.ParseCountry("FR")
	k, _ := plate.Parse("AB123CD")
	return k.FormOf(fr)
}()

func load(path, vehicles string) (*corpus, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := parse(f, vehicles)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func parse(r io.Reader, vehicles string) (*corpus, error) {
	rows := csv.NewReader(r)
	head, err := rows.Read()
	if err != nil {
		return nil, err
	}
	var col [4]int
	for i, name := range []string{"true_plate", "country", "read_plate", "confidence"} {
		if col[i] = slices.Index(head, name); col[i] < 0 {
			return nil, fmt.Errorf("there is no column %s: true_plate, country, read_plate and confidence are needed", name)
		}
	}
	c := new(corpus)
	type id struct {
		key     plate.Key
		country plate.Country
	}
	known := map[id]int{}
	for {
		row, err := rows.Read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		line, _ := rows.FieldPos(0)
		truth, err := plate.Parse(row[col[0]])
		if err != nil {
			return nil, fmt.Errorf("line %d: true_plate: %w", line, err)
		}
		if vehicles != "all" && misread.HeldOut(truth.String()) != (vehicles == "held-out") {
			continue
		}
		country, ok := plate.ParseCountry(row[col[1]])
		if !ok {
			return nil, fmt.Errorf("line %d: country is not recognised", line)
		}
		conf, err := strconv.ParseFloat(row[col[3]], 32)
		if err != nil || conf < 0 || conf > 1 {
			return nil, fmt.Errorf("line %d: confidence is not a number from 0 to 1", line)
		}
		n, ok := known[id{truth, country}]
		if !ok {
			n = len(c.vehicles)
			known[id{truth, country}] = n
			c.vehicles = append(c.vehicles, c.vehicle(truth, country))
		}
		// What is no plate stays in the count: nothing can be hit by it.
		key, _ := plate.Parse(row[col[2]])
		c.reads = append(c.reads, read{vehicle: n, key: key, conf: float32(conf)})
		if c.vehicles[n].siv {
			c.french++
		}
	}
	if c.french == 0 {
		return nil, errors.New("no read of a French plate (country FR, AB-123-CD)")
	}
	for i := range c.series {
		c.series[i].share /= float64(len(c.vehicles))
	}
	return c, nil
}

// vehicle classes a true plate and counts it for its series.
func (c *corpus) vehicle(key plate.Key, country plate.Country) vehicle {
	form := key.FormOf(country)
	v := vehicle{key: key, country: country, siv: form == siv && form >= 0}
	s := series{country: country, form: form, like: key}
	if form >= 0 {
		s.places = plate.FormPlaces(form)
	} else {
		var codes [plate.MaxLen]uint8
		n := key.Codes(&codes)
		for _, x := range codes[:n] {
			if plate.Letters>>x&1 != 0 {
				s.places = append(s.places, plate.Letters)
			} else {
				s.places = append(s.places, plate.Digits)
			}
		}
	}
	s.size = 1
	for _, set := range s.places {
		s.size *= float64(len(members(set)))
	}
	v.series = slices.IndexFunc(c.series, func(o series) bool {
		return o.country == country && o.form == form && slices.Equal(o.places, s.places)
	})
	if v.series < 0 {
		v.series = len(c.series)
		c.series = append(c.series, s)
	}
	c.series[v.series].share++
	return v
}

// members lists the codes of the characters of a set.
func members(s plate.Set) (codes []uint8) {
	for x := uint8(1); x < misread.Codes; x++ {
		if s>>x&1 != 0 {
			codes = append(codes, x)
		}
	}
	return codes
}

// draw draws a plate of s.
func (s *series) draw(r *rand.Rand) (k plate.Key) {
	for _, set := range s.places {
		m := members(set)
		k = k*misread.Codes + plate.Key(m[r.IntN(len(m))])
	}
	return k
}
