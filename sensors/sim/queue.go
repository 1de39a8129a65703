package sim

// event is the next read of a trip.
type event struct {
	at   int64  // microseconds since the start
	trip uint32 // index into Fleet.trips
}

// queue is a binary heap of events by time, then by trip. It is written out
// because container/heap calls through an interface and allocates an event at
// every Push.
type queue []event

func (a event) before(b event) bool { return a.at < b.at || a.at == b.at && a.trip < b.trip }

func (q *queue) push(e event) {
	*q = append(*q, e)
	h := *q
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = e
}

// pop removes the first event. The queue must not be empty.
func (q *queue) pop() event {
	h := *q
	first := h[0]
	last := h[len(h)-1]
	h = h[:len(h)-1]
	*q = h
	i := 0
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(h[down]) {
			down++
		}
		if !h[down].before(last) {
			break
		}
		h[i] = h[down]
		i = down
	}
	if len(h) > 0 {
		h[i] = last
	}
	return first
}
