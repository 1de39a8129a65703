package misread

import "vigie/watchlist/plate"

// Plausible calls yield for every plate of a form whose Posterior is
// at least least, which must be above 0, in no particular order. It goes through
// all plates of the form, leaving out beginnings of which no plate can reach
// least. It is for measuring, not for the way of a read: a good read takes
// microseconds, a poor one milliseconds.
func (r *Reading) Plausible(form int, least float32, yield func(plate.Key)) {
	s := search{r: r, sets: plate.FormPlaces(form), yield: yield}
	if len(s.sets)-r.n > drift || r.n-len(s.sets) > drift || r.n == 0 {
		return
	}
	var any plate.Key // some plate of the form
	for i, set := range s.sets {
		x := uint8(1)
		for set>>x&1 == 0 {
			x++
		}
		if x > 10 {
			s.shape |= 1 << i
		}
		any = any*Codes + plate.Key(x)
	}
	s.least = least * r.all(any, form)
	s.bounds()
	for z := range Kinds {
		s.reached[0][z][0] = learnt.Kind[r.band][z]
	}
	s.place(0, 0)
}

// line holds a number for each count of characters read so far.
type line [plate.MaxLen + 2]float32

type search struct {
	r     *Reading
	sets  []plate.Set
	shape uint16
	least float32
	yield func(plate.Key)

	reached [plate.MaxLen + 1][Kinds]line // see Reading.forward
	bound   [plate.MaxLen + 1][Kinds]line // the most that the places from here on can give
}

// added makes the step of characters added before place i.
func (s *search) added(i, z int, l *line) {
	a := &addedAs[GapClass(len(s.sets), i, s.shape)][z]
	for j := max(0, i-drift); j < min(s.r.n, i+drift); j++ {
		l[j+1] += l[j] * a[s.r.code[j+drift]]
	}
}

// stay is the probability that no more characters are added before place i.
func (s *search) stay(i, z int) float32 {
	return 1 - learnt.Added[z][GapClass(len(s.sets), i, s.shape)]
}

// bounds fills bound from the last place to the first.
func (s *search) bounds() {
	n, r := len(s.sets), s.r
	for z := range Kinds {
		for i := n; i >= 0; i-- {
			a := &addedAs[GapClass(n, i, s.shape)][z]
			stay := s.stay(i, z)
			b := &s.bound[i][z]
			for j := min(r.n, i+drift); j >= max(0, i-drift); j-- {
				switch {
				case i < n:
					lost := learnt.Lost[z][PlaceClass(n, i)]
					b[j] = stay * lost * s.bound[i+1][z][j]
					if j < r.n {
						b[j] += stay * (1 - lost) * s.most(i, j, z) * s.bound[i+1][z][j+1]
					}
				case j == r.n:
					b[j] = stay
				}
				if j < min(r.n, i+drift) {
					b[j] += a[r.code[j+drift]] * b[j+1]
				}
			}
		}
	}
}

// most is the greatest probability with which a character of place i is read as
// character j of the read.
func (s *search) most(i, j, z int) (most float32) {
	for x := range Codes {
		if s.sets[i]>>x&1 != 0 {
			most = max(most, charRow[x][s.r.level[j+drift]][z][s.r.code[j+drift]])
		}
	}
	return most
}

// place tries all characters of place i after those of key.
func (s *search) place(i int, key plate.Key) {
	n, r := len(s.sets), s.r
	at := s.reached[i]
	for z := range Kinds {
		s.added(i, z, &at[z])
	}
	if i == n {
		all := float32(0)
		for z := range Kinds {
			all += at[z][r.n] * s.stay(n, z)
		}
		if all >= s.least {
			s.yield(key)
		}
		return
	}
	for x := range Codes {
		if s.sets[i]>>x&1 == 0 {
			continue
		}
		var bound float32
		for z := range Kinds {
			lost := learnt.Lost[z][PlaceClass(n, i)]
			stay := s.stay(i, z)
			next := &s.reached[i+1][z]
			*next = line{}
			for j := max(0, i-drift); j <= min(r.n, i+drift); j++ {
				next[j] += at[z][j] * stay * lost
				if j < r.n {
					next[j+1] += at[z][j] * stay * (1 - lost) * charRow[x][r.level[j+drift]][z][r.code[j+drift]]
				}
			}
			for j, v := range next {
				bound += v * s.bound[i+1][z][j]
			}
		}
		if bound >= s.least {
			s.place(i+1, key*Codes+plate.Key(x))
		}
	}
}
