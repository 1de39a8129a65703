package sim

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// Sensor is a simulated device beside a road.
type Sensor struct {
	ID        string // road, kilometre and direction of travel: "A7-118-2"
	Name      string
	Lat, Lon  float64 // degrees, WGS 84
	Road      string
	Direction string   // where the vehicles that it sees are heading
	Zones     []string // department and region: "dept-26", "region-ara"
}

// site is a place beside a road where sensors can stand: an interchange, a toll
// plaza or a service area. Kilometres and coordinates were set down from general
// knowledge of the network: the places are good to about two kilometres, and the
// kilometres are chosen to agree with them rather than with the posts on the road.
// That is enough to look right on a map and to give travel times. No real camera
// is described.
type site struct {
	km       int
	lat, lon float64
	name     string
	dept     string
}

// road is one road with its sites in the order of their kilometres.
type road struct {
	name    string
	ends    [2]string // where direction 1 (rising kilometres) and direction 2 lead
	first   int       // the direction, 1 or 2, that gets its sensors first
	hub     int       // the site that gets its sensor first
	traffic float64   // weight: vehicles relative to the other roads
	limit   float64   // km/h for cars
	mix     []share   // countries of cars
	sites   []site
}

// share is the share of a country among the cars of a road, in percent.
type share struct {
	country string
	percent float64
}

// The shares of foreign cars rise towards the border that a road leads to. They
// are plausible, not counted.
var roads = []road{
	{"A1", [2]string{"Lille", "Paris"}, 2, 0, 1.3, 130,
		[]share{{"FR", 76}, {"BE", 9}, {"NL", 5}, {"GB", 4}, {"DE", 3}, {"PL", 2}, {"LU", 1}},
		[]site{
			{8, 48.939, 2.413, "Le Bourget", "93"},
			{42, 49.221, 2.612, "Senlis", "60"},
			{80, 49.541, 2.747, "Ressons", "60"},
			{119, 49.883, 2.838, "Assevillers", "80"},
			{168, 50.320, 2.925, "Fresnes-lès-Montauban", "62"},
			{207, 50.590, 3.110, "Lesquin", "59"},
		}},
	{"A6", [2]string{"Lyon", "Paris"}, 1, 0, 1.2, 130,
		[]share{{"FR", 87}, {"BE", 3}, {"NL", 3}, {"CH", 2}, {"DE", 2}, {"GB", 1}, {"IT", 1}, {"ES", 1}},
		[]site{
			{31, 48.612, 2.437, "Évry", "91"},
			{52, 48.442, 2.545, "Fleury-en-Bière", "77"},
			{76, 48.262, 2.722, "Nemours", "77"},
			{155, 47.842, 3.545, "Auxerre", "89"},
			{207, 47.515, 4.030, "Avallon", "89"},
			{259, 47.250, 4.560, "Pouilly-en-Auxois", "21"},
			{305, 47.010, 4.855, "Beaune", "21"},
			{388, 46.345, 4.845, "Mâcon", "71"},
			{431, 45.985, 4.735, "Villefranche-sur-Saône", "69"},
		}},
	{"A7", [2]string{"Marseille", "Lyon"}, 2, 3, 1.5, 130,
		[]share{{"FR", 82}, {"BE", 4}, {"DE", 4}, {"NL", 3}, {"CH", 3}, {"IT", 2}, {"ES", 1}, {"GB", 1}},
		[]site{
			{44, 45.320, 4.815, "Chanas", "38"},
			{73, 45.070, 4.860, "Tain-l'Hermitage", "26"},
			{98, 44.905, 4.880, "Valence", "26"},
			{118, 44.755, 4.810, "Loriol", "26"},
			{149, 44.490, 4.785, "Montélimar", "26"},
			{172, 44.295, 4.745, "Bollène", "84"},
			{191, 44.135, 4.790, "Orange", "84"},
			{222, 43.890, 4.920, "Avignon", "13"},
			{261, 43.605, 5.175, "Lançon-Provence", "13"},
		}},
	{"A9", [2]string{"Le Perthus", "Orange"}, 1, 0, 1.2, 130,
		[]share{{"FR", 78}, {"ES", 10}, {"DE", 3}, {"BE", 3}, {"NL", 2}, {"CH", 1.5}, {"IT", 1}, {"PT", 1}, {"GB", 0.5}},
		[]site{
			{50, 43.835, 4.405, "Nîmes", "30"},
			{73, 43.720, 4.185, "Gallargues", "30"},
			{107, 43.570, 3.830, "Saint-Jean-de-Védas", "34"},
			{146, 43.380, 3.445, "Agde", "34"},
			{163, 43.335, 3.275, "Béziers", "34"},
			{191, 43.170, 3.030, "Narbonne", "11"},
			{220, 42.925, 2.960, "Leucate", "11"},
			{252, 42.665, 2.855, "Perpignan", "66"},
			{270, 42.525, 2.835, "Le Boulou", "66"},
		}},
	{"A10", [2]string{"Bordeaux", "Paris"}, 1, 0, 1.0, 130,
		[]share{{"FR", 90}, {"ES", 3}, {"PT", 2}, {"BE", 2}, {"NL", 1.5}, {"GB", 1}, {"DE", 0.5}},
		[]site{
			{48, 48.545, 1.945, "Saint-Arnoult", "78"},
			{117, 47.945, 1.865, "Orléans", "45"},
			{171, 47.610, 1.365, "Blois", "41"},
			{217, 47.490, 0.800, "Monnaie", "37"},
			{248, 47.235, 0.690, "Sorigny", "37"},
			{318, 46.665, 0.360, "Futuroscope", "86"},
			{334, 46.545, 0.300, "Poitiers", "86"},
			{455, 45.755, -0.660, "Saintes", "17"},
			{540, 45.020, -0.440, "Virsac", "33"},
		}},
	{"A13", [2]string{"Caen", "Paris"}, 1, 0, 1.0, 130,
		[]share{{"FR", 96}, {"GB", 2}, {"BE", 1}, {"DE", 1}},
		[]site{
			{55, 48.990, 1.670, "Buchelay", "78"},
			{85, 49.135, 1.340, "Gaillon", "27"},
			{96, 49.200, 1.235, "Heudebouville", "27"},
			{146, 49.385, 0.640, "Bourneville", "27"},
			{187, 49.280, 0.195, "Pont-l'Évêque", "14"},
			{207, 49.225, -0.055, "Dozulé", "14"},
			{226, 49.180, -0.290, "Mondeville", "14"},
		}},
	{"A26", [2]string{"Troyes", "Calais"}, 2, 0, 0.5, 130,
		[]share{{"FR", 76}, {"GB", 12}, {"BE", 6}, {"NL", 2}, {"DE", 1}, {"CH", 1}, {"PL", 1}, {"IT", 1}},
		[]site{
			{34, 50.725, 2.180, "Saint-Omer", "62"},
			{75, 50.505, 2.600, "Béthune", "62"},
			{125, 50.210, 3.095, "Marquion", "62"},
			{165, 49.870, 3.235, "Saint-Quentin", "02"},
			{209, 49.585, 3.650, "Laon", "02"},
			{251, 49.290, 3.960, "Reims", "51"},
			{296, 48.960, 4.280, "Châlons-en-Champagne", "51"},
		}},
	{"A35", [2]string{"Bâle", "Lauterbourg"}, 1, 0, 1.1, 110,
		[]share{{"FR", 78}, {"DE", 13}, {"CH", 6}, {"BE", 1}, {"NL", 1}, {"LU", 1}},
		[]site{
			{53, 48.590, 7.725, "Strasbourg", "67"},
			{63, 48.525, 7.635, "Duppigheim", "67"},
			{97, 48.265, 7.430, "Sélestat", "67"},
			{116, 48.110, 7.380, "Colmar", "68"},
			{144, 47.870, 7.385, "Ensisheim", "68"},
			{154, 47.785, 7.385, "Sausheim", "68"},
			{179, 47.605, 7.540, "Saint-Louis", "68"},
		}},
	{"A63", [2]string{"Biriatou", "Bordeaux"}, 1, 0, 0.9, 130,
		[]share{{"FR", 76}, {"ES", 12}, {"PT", 6}, {"DE", 2}, {"BE", 1.5}, {"NL", 1.5}, {"GB", 1}},
		[]site{
			{13, 44.730, -0.700, "Cestas", "33"},
			{52, 44.400, -0.860, "Saugnac", "40"},
			{74, 44.210, -0.915, "Labouheyre", "40"},
			{115, 43.885, -1.130, "Castets", "40"},
			{150, 43.635, -1.360, "Bénesse-Maremne", "40"},
			{180, 43.450, -1.550, "Biarritz", "64"},
			{201, 43.345, -1.740, "Biriatou", "64"},
		}},
	{"A64", [2]string{"Toulouse", "Bayonne"}, 1, 0, 0.6, 130,
		[]share{{"FR", 93}, {"ES", 4}, {"PT", 1.5}, {"BE", 0.5}, {"GB", 0.5}, {"DE", 0.5}},
		[]site{
			{60, 43.475, -0.765, "Orthez", "64"},
			{80, 43.390, -0.560, "Artix", "64"},
			{96, 43.335, -0.380, "Pau", "64"},
			{132, 43.220, 0.030, "Tarbes", "65"},
			{165, 43.130, 0.390, "Lannemezan", "65"},
			{194, 43.115, 0.725, "Saint-Gaudens", "31"},
			{268, 43.460, 1.325, "Muret", "31"},
		}},
	{"N118", [2]string{"Les Ulis", "Paris"}, 2, 0, 1.0, 90,
		[]share{{"FR", 99}, {"BE", 0.5}, {"PT", 0.5}},
		[]site{
			{1, 48.822, 2.218, "Sèvres", "92"},
			{7, 48.783, 2.195, "Vélizy", "78"},
			{15, 48.725, 2.165, "Saclay", "91"},
			{20, 48.682, 2.180, "Les Ulis", "91"},
		}},
}

// regions gives the region of each department in roads.
var regions = map[string]string{
	"02": "hdf", "59": "hdf", "60": "hdf", "62": "hdf", "80": "hdf",
	"77": "idf", "78": "idf", "91": "idf", "92": "idf", "93": "idf",
	"14": "nor", "27": "nor", "51": "ges", "67": "ges", "68": "ges",
	"21": "bfc", "71": "bfc", "89": "bfc", "37": "cvl", "41": "cvl", "45": "cvl",
	"26": "ara", "38": "ara", "69": "ara", "13": "pac", "84": "pac",
	"11": "occ", "30": "occ", "31": "occ", "34": "occ", "65": "occ", "66": "occ",
	"17": "naq", "33": "naq", "40": "naq", "64": "naq", "86": "naq",
}

// chain is one direction of one road: the sensors that a vehicle passes, in order.
type chain struct {
	road    *road
	sensors []int     // indexes into Fleet.sensors
	km      []float64 // driven from the first sensor to each
}

// spot is where a sensor stands.
type spot struct {
	road, direction, km int // direction 1 or 2
}

// spots returns n spots in the order in which a fleet grows: first the hub of
// every road in its first direction, then the next site of every road, so that
// vehicles soon meet a second sensor; then the other directions; then points
// between the sites, ever denser. It returns fewer when there is no more room.
func spots(n int) []spot {
	out := make([]spot, 0, n)
	taken := make(map[spot]bool)
	add := func(p spot) {
		if len(out) < n && !taken[p] {
			taken[p] = true
			out = append(out, p)
		}
	}
	for _, other := range []bool{false, true} {
		for i := range mostSites {
			for r := range roads {
				if rd := &roads[r]; i < len(rd.sites) {
					direction := rd.first
					if other {
						direction = 3 - direction
					}
					add(spot{r, direction, rd.sites[(rd.hub+i)%len(rd.sites)].km})
				}
			}
		}
	}
	for _, step := range []int{16, 8, 4, 2, 1} {
		for r := range roads {
			sites := roads[r].sites
			for km := sites[0].km; km <= sites[len(sites)-1].km; km += step {
				add(spot{r, 1, km})
				add(spot{r, 2, km})
			}
		}
	}
	return out
}

// mostSites is the number of sites of the longest list.
const mostSites = 9

// maxSensors is how many spots there are.
var maxSensors = len(spots(math.MaxInt16))

// build makes the sensors of the spots and the chains they form. Sensors come in
// the order of spots, chains in the order of roads and directions.
func build(at []spot) ([]Sensor, []chain) {
	list := make([]Sensor, len(at))
	var chains []chain
	for r := range roads {
		for direction := 1; direction <= 2; direction++ {
			c := chain{road: &roads[r]}
			for i, p := range at {
				if p.road == r && p.direction == direction {
					c.sensors = append(c.sensors, i)
				}
			}
			if len(c.sensors) == 0 {
				continue
			}
			slices.SortFunc(c.sensors, func(a, b int) int {
				if direction == 2 {
					a, b = b, a
				}
				return at[a].km - at[b].km
			})
			for _, i := range c.sensors {
				c.km = append(c.km, math.Abs(float64(at[i].km-at[c.sensors[0]].km)))
				list[i] = roads[r].sensor(at[i].km, direction)
			}
			chains = append(chains, c)
		}
	}
	return list, chains
}

// sensor is the device at a kilometre of the road. Between sites it stands on the
// straight line.
func (rd *road) sensor(km, direction int) Sensor {
	i := 0
	for i < len(rd.sites)-2 && rd.sites[i+1].km <= km {
		i++
	}
	a, b := rd.sites[i], rd.sites[i+1]
	part := float64(km-a.km) / float64(b.km-a.km)
	near := a
	if part > 0.5 {
		near = b
	}
	towards := rd.ends[direction-1]
	name := fmt.Sprintf("%s %s, km %d, towards %s", rd.name, near.name, km, towards)
	return Sensor{
		ID:   rd.name + "-" + strconv.Itoa(km) + "-" + strconv.Itoa(direction),
		Name: name,
		Lat:  round5(a.lat + part*(b.lat-a.lat)), Lon: round5(a.lon + part*(b.lon-a.lon)),
		Road: rd.name, Direction: towards,
		Zones: []string{"dept-" + near.dept, "region-" + regions[near.dept]},
	}
}

func round5(v float64) float64 { return math.Round(v*1e5) / 1e5 }
