package matcher

import (
	"vigie/matcher/misread"
	"vigie/watchlist"
)

// DefaultThreshold returns the least score at which an inexact hit alerts on a
// list of a number of entries that sets no threshold of its own.
//
// The scores of all plates that a read may have been add up to at most 1, so at
// most 1/threshold of them alert, and each is on a list of n entries with
// probability n/N, N being the plates issued (280 million of the French form).
// A threshold that grows with n keeps the false alerts per read the same however
// long the list: about 125 per million reads for ocr, and 180 for near up to 10,000 entries. It ends at
// one half, where a hit is more likely right than wrong. Measured by
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
func score(e *watchlist.Entry, r *misread.Reading, q *Query) float32 {
	p := r.Posterior(e.Key, e.Country)
	if len(q.Candidates) == 0 {
		return p
	}
	others := q.Candidates[:min(len(q.Candidates), MaxCandidates)]
	all := orUnsaid(q.Conf)
	for _, c := range others {
		if c.Key != q.Key && c.Key != 0 {
			all += orUnsaid(c.Conf)
		}
	}
	p *= orUnsaid(q.Conf) / all
	for _, c := range others {
		if c.Key != q.Key && c.Key != 0 {
			var o misread.Reading
			o.Set(c.Key, q.Country, q.Conf, nil)
			p += orUnsaid(c.Conf) / all * o.Posterior(e.Key, e.Country)
		}
	}
	return p
}

func orUnsaid(conf float32) float32 {
	if conf > 0 && conf <= 1 {
		return conf
	}
	return unsaid
}
