package matcher

import (
	"slices"

	"vigie/matcher/misread"
	"vigie/watchlist"
	"vigie/watchlist/plate"
)

// DefaultThreshold returns the least score at which an inexact hit alerts on a
// list of a number of entries that sets no threshold of its own.
//
// The scores of all plates that a read may have been add up to at most 1, so at
// most 1/threshold of them alert, and each is on a list of n entries with
// probability n/N, N being the plates issued (280 million of the French form).
// A threshold that grows with n keeps the false alerts per read the same however
// long the list, about 125 per million reads for ocr; short lists have the least
// threshold that is worth a look, and fewer false alerts: 160 for near at 10,000
// entries. It ends at one half, where a hit is more likely right than wrong. Measured by
// bench/accuracy; the table is in DESIGN.md.
func DefaultThreshold(t watchlist.Tolerance, entries int) float32 {
	switch t {
	case watchlist.ToleranceOCR:
		return min(max(0.02, 6.5e-7*float32(entries)), 0.5)
	case watchlist.ToleranceNear:
		return min(max(0.006, 2.5e-7*float32(entries)), 0.5)
	}
	return 0
}

// MaxCandidates is how many of a sensor's other readings are weighed.
const MaxCandidates = 8

// unsaid is the weight of a reading that comes without confidence.
const unsaid = 0.1

// score returns how likely the vehicle bears the plate of e, 0 to 1, by what the
// sensor settled on, r, and its other readings, each as likely as the sensor says.
func score(e *watchlist.Packed, r *misread.Reading, q *Query) float32 {
	p := r.Posterior(e.Key(), e.Country())
	others := q.Candidates[:min(len(q.Candidates), MaxCandidates)]
	all := float32(0)
	for i, c := range others {
		if counts(others, i, q.Key) {
			all += orUnsaid(c.Conf)
		}
	}
	if all == 0 {
		return p
	}
	settled := orUnsaid(confidence(q))
	all += settled
	p *= settled / all
	for i, c := range others {
		if counts(others, i, q.Key) {
			var o misread.Reading
			o.Set(c.Key, q.Country, q.Conf, nil)
			p += orUnsaid(c.Conf) / all * o.Posterior(e.Key(), e.Country())
		}
	}
	return p
}

// counts reports whether others[i] is another reading than key and those before it.
func counts(others []Candidate, i int, key plate.Key) bool {
	k := others[i].Key
	return k != key && k != 0 && !slices.ContainsFunc(others[:i], func(o Candidate) bool { return o.Key == k })
}

// confidence is that in the whole plate, or the mean of those in its characters.
func confidence(q *Query) float32 {
	if q.Conf != 0 || len(q.CharConf) != q.Key.Len() || len(q.CharConf) == 0 {
		return q.Conf
	}
	sum := float32(0)
	for _, c := range q.CharConf {
		sum += c
	}
	return sum / float32(len(q.CharConf))
}

func orUnsaid(conf float32) float32 {
	if conf > 0 && conf <= 1 {
		return conf
	}
	return unsaid
}
