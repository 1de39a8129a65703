package sim

import (
	"strconv"
	"time"

	"vigie/watchlist/plate"
)

// vehicle is what the fleet knows of a car. It follows from its seed alone, so
// that a population of millions takes no memory.
type vehicle struct {
	plate   string // A-Z and 0-9
	country plate.Country
	make    string
	color   string
	truck   bool
}

// Letters of the series. None has letters that its country leaves out.
const (
	sivLetters     = "ABCDEFGHJKLMNPQRSTVWXYZ" // FR: no I O U
	italianLetters = "ABCDEFGHJKLMNPRSTVWXYZ"
	spanishLetters = "BCDFGHJKLMNPRSTVWXYZ"
	dutchLetters   = "BDFGHJKLNPRSTVXZ"
	britishLetters = "ABCDEFGHJKLMNOPRSTUVWXYZ"
	britishAreas   = "ABCDEFGHKLMNOPRSVWY"
	britishSecond  = "ABCDEFGHJKLMNOPRSTUVWXY"
	allLetters     = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits         = "0123456789"
)

// pairs is how many left-hand pairs of the SIV had been reached in the year of a
// fleet. The series began in April 2009 with AA and reached HA late in 2024: ten
// pairs a year.
func pairs(start time.Time) int {
	years := start.Sub(time.Date(2009, time.April, 15, 0, 0, 0, 0, time.UTC)).Hours() / (24 * 365.25)
	return min(max(int(years*10), 1), len(sivLetters)*len(sivLetters)-1)
}

// plateOf draws a plate of a country as it stands on a car, without separators.
func plateOf(r *rng, country string, pairs int) string {
	var b []byte
	put := func(alphabet string, n int) {
		for range n {
			b = append(b, r.pick(alphabet))
		}
	}
	// layout fills a pattern: L a letter, D a digit, the rest as it is.
	layout := func(pattern, letters string) {
		for i := range len(pattern) {
			switch c := pattern[i]; c {
			case 'L':
				put(letters, 1)
			case 'D':
				put(digits, 1)
			default:
				b = append(b, c)
			}
		}
	}
	number := func(lo, hi int) { b = strconv.AppendInt(b, int64(r.between(lo, hi)), 10) }
	switch country {
	case "FR":
		if r.chance(0.012) { // FNI, last issued in 2009, on cars that never changed hands since
			if r.chance(0.5) {
				number(10, 9999)
				put("ABCDEFGHJKLMNPQRSTVWXYZ", 2)
			} else {
				number(10, 999)
				put("ABCDEFGHJKLMNPQRSTVWXYZ", 3)
			}
			d := r.between(1, 95)
			if d == 20 {
				return string(append(b, "2A"...))
			}
			return string(append(b, digits[d/10], digits[d%10]))
		}
		for {
			// No SS on either side; WW on the left is for provisional plates.
			left := int(float64(pairs) * lean(r.float()))
			l1, l2 := sivLetters[left/23], sivLetters[left%23]
			r1, r2 := r.pick(sivLetters), r.pick(sivLetters)
			if l1 == 'S' && l2 == 'S' || l1 == 'W' && l2 == 'W' || r1 == 'S' && r2 == 'S' {
				continue
			}
			n := r.between(1, 999)
			return string(append(b, l1, l2, digits[n/100], digits[n/10%10], digits[n%10], r1, r2))
		}
	case "BE":
		if r.chance(0.05) {
			layout("LLLDDD", "ABCDEFGHJKLNPRSTUVXYZ")
			return string(b)
		}
		put("1112", 1)
		layout("LLLDDD", "ABCDEFGHJKLNPRSTUVXYZ")
	case "DE":
		b = append(b, germanTowns[r.intn(len(germanTowns))]...)
		put(allLetters, r.between(1, 2))
		electric := r.chance(0.08)
		if room := 8 - len(b); electric || room < 4 {
			number(10, 999)
		} else {
			number(10, 9999)
		}
		if electric {
			b = append(b, 'E')
		}
	case "ES":
		layout("DDDD", "")
		b = append(b, spanishLetters[int(10.3*lean(r.float()))]) // B in 2000, N in 2026
		put(spanishLetters, 2)
	case "IT":
		b = append(b, italianLetters[2+int(5*lean(r.float()))]) // C in 2001, G since 2020
		layout("LDDDLL", italianLetters)
	case "GB":
		put(britishAreas, 1)
		put(britishSecond, 1)
		age := r.between(8, 26)
		if r.chance(0.5) {
			age += 50
		}
		b = append(b, digits[age/10], digits[age%10])
		put(britishLetters, 3)
	case "NL":
		layout([]string{"DDLLLD", "DLLLDD", "LLDDDL", "LLDDDL", "LDDDLL", "LDDDLL", "LLLDDL"}[r.intn(7)], dutchLetters)
	case "CH":
		b = append(b, swissCantons[r.intn(len(swissCantons))]...)
		number(1000, 999999)
	case "PT":
		if r.chance(0.4) { // since 2020
			put("ABC", 1)
			layout("LDDLL", "ABCDEFGHIJLMNOPQRSTUVXZ")
		} else {
			layout([]string{"DDLLDD", "DDDDLL"}[r.intn(2)], "ABCDEFGHIJLMNOPQRSTUVXZ")
		}
	case "PL":
		town := polishTowns[r.intn(len(polishTowns))]
		b = append(b, town...)
		forms := []string{"DDDDD", "DDDDL", "DDDLL"}
		if len(town) == 3 {
			forms = []string{"LDDD", "DDLL", "DDDDD", "DDDDL"}
		}
		layout(forms[r.intn(len(forms))], "ACEFGHJKLMNPRSTUVWXY")
	default: // LU
		layout("LLDDDD", "ABCDEFGHJKLMNPRSTUVWXYZ")
	}
	return string(b)
}

// pow34 is about x to the power of 3/4 for x in [0, 1), by arithmetic that gives
// the same on every machine.
func lean(x float64) float64 { return x * (2.2 - x*(2.1-x*0.9)) }

var (
	germanTowns  = []string{"B", "M", "K", "F", "S", "HH", "KA", "FR", "OG", "SB", "MA", "HD", "LU", "TR", "AC", "DU", "EM", "NW", "WT", "RA", "BAD", "GER", "TUT", "KEL"}
	swissCantons = []string{"VD", "VD", "GE", "GE", "ZH", "ZH", "BE", "BS", "BL", "AG", "FR", "NE", "JU", "VS", "SO", "LU", "TI", "SG"}
	polishTowns  = []string{"WI", "WX", "KR", "PO", "GD", "DW", "SK", "WPR", "KRA", "LLU", "RZE", "SBI"}

	// trucks come from farther away on every road.
	trucks = []share{{"FR", 58}, {"PL", 12}, {"ES", 9}, {"PT", 5}, {"BE", 4}, {"DE", 5}, {"NL", 3}, {"IT", 3}, {"LU", 1}}

	carMakes = []string{"Renault", "Renault", "Renault", "Peugeot", "Peugeot", "Peugeot", "Citroën", "Citroën",
		"Dacia", "Volkswagen", "Volkswagen", "Toyota", "Ford", "Opel", "BMW", "Mercedes-Benz", "Audi", "Fiat",
		"Nissan", "Hyundai", "Kia", "Škoda", "Seat", "Tesla", "Mini", "Volvo"}
	truckMakes = []string{"DAF", "Scania", "Volvo", "Renault Trucks", "Mercedes-Benz", "MAN", "Iveco"}
	colors     = []string{"white", "white", "white", "grey", "grey", "grey", "black", "black", "blue", "blue", "red", "silver", "silver", "green", "brown", "yellow"}
)

// truckShare is the share of trucks among all vehicles.
const truckShare = 0.12

// vehicleOf returns the vehicle of a seed on a road.
func vehicleOf(seed uint64, rd *road, pairs int) vehicle {
	r := rng(seed)
	v := vehicle{truck: r.chance(truckShare)}
	from := rd.mix
	makes := carMakes
	if v.truck {
		from, makes = trucks, truckMakes
	}
	at := r.float() * 100
	country := from[0].country
	for _, s := range from {
		country = s.country
		if at -= s.percent; at < 0 {
			break
		}
	}
	v.country, _ = plate.ParseCountry(country)
	v.plate = plateOf(&r, country, pairs)
	v.make = makes[r.intn(len(makes))]
	v.color = colors[r.intn(len(colors))]
	return v
}
