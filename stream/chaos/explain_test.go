//go:build linux

package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"vigie/stream/ledger"
)

// explain says when the read and the entry of broken promises were, beside the faults. It names
// things by their ids, as the check does.
func (tr *trial) explain(broken []ledger.Violation) {
	tr.t.Helper()
	if len(tr.strikes) == 0 {
		return
	}
	since := func(us int64) time.Duration {
		return time.UnixMicro(us).Sub(tr.strikes[0]).Round(time.Millisecond)
	}
	const most = 12
	reads, entries, alerts := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, v := range broken[:min(len(broken), most)] {
		if v.Read != "" {
			reads[v.Read], entries[v.Entry] = true, true
		}
		alerts[v.Alert] = true
	}
	for _, m := range tr.stored(queue) {
		var a struct {
			Read, Entry struct{ ID string }
			Match       struct{ Version int64 }
		}
		var ms int64
		text, _ := m.Values["data"].(string)
		if id, _ := m.Values["id"].(string); !alerts[id] || json.Unmarshal([]byte(text), &a) != nil {
			continue
		}
		if _, err := fmt.Sscanf(m.ID, "%d-", &ms); err != nil {
			continue
		}
		reads[a.Read.ID], entries[a.Entry.ID] = true, true
		tr.t.Logf("alert %s was stored at %v, of read %s and entry %s, matched at version %d", m.Values["id"], since(ms*1000), a.Read.ID, a.Entry.ID, a.Match.Version)
	}
	for i, at := range tr.strikes {
		tr.t.Logf("fault %d at %v", i+1, since(at.UnixMicro()))
	}
	for i, at := range tr.heals {
		tr.t.Logf("mended %d at %v", i+1, since(at.UnixMicro()))
	}
	f, err := os.Open(tr.ledger)
	if err != nil {
		tr.t.Error(err)
		return
	}
	defer f.Close()
	lr, err := ledger.NewReader(f)
	if err != nil {
		tr.t.Error(err)
		return
	}
	issued := map[int64]ledger.Change{}
	for {
		rec, err := lr.Next()
		if err != nil {
			return
		}
		switch {
		case rec.Read != nil && reads[rec.Read.ID]:
			tr.t.Logf("read %s was sent at %v", rec.Read.ID, since(rec.Read.Sent))
		case rec.Change != nil:
			issued[rec.Change.N] = *rec.Change
		case rec.Changed != nil && entries[rec.Changed.Entry]:
			c := issued[rec.Changed.N]
			tr.t.Logf("entry %s: %s issued at %v, %s at %v, version %d", rec.Changed.Entry, c.Op, since(c.Issued), rec.Changed.Result, since(rec.Changed.Confirmed), rec.Changed.Version)
		}
	}
}
