package control

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"vigie/watchlist/control/controlpb"
)

// entryFields are the fields of controlpb.Entry that a reader uses. The texts lie
// in the value that was decoded.
type entryFields struct {
	id, list, plate, country, reason, action, caseRef, requester, vehicle, safety []byte
	priority, listTag                                                             uint32
	from, until                                                                   int64
}

// scan decodes value where it is. It reports false for anything that the
// generated decoder should judge: whatever is malformed, and whatever is well
// formed but nothing that this version writes, such as a field given twice.
//
// With generated code, loading an entry made 13 allocations and took 2.8 us, half
// a minute for the ten million of a large control log; with scan it makes 3 and
// takes half of that (BenchmarkLoad). Where scan accepts, FuzzScan holds it to the
// answer of the generated decoder.
func (f *entryFields) scan(value []byte) bool {
	var body []byte
	for len(value) > 0 {
		num, typ, n := consumeTag(value)
		if n < 0 {
			return false
		}
		value = value[n:]
		switch {
		case num == 1 && typ == protowire.VarintType, num == 3 && typ == protowire.VarintType: // packing, at
			_, n = protowire.ConsumeVarint(value)
		case num == 2 && typ == protowire.BytesType: // actor
			_, n = consumeText(value)
		case num == 5 && typ == protowire.BytesType && body == nil:
			body, n = protowire.ConsumeBytes(value)
		default: // another kind, a newer schema or field
			return false
		}
		if n < 0 {
			return false
		}
		value = value[n:]
	}
	return body != nil && f.scanBody(body)
}

// consumeTag is protowire.ConsumeTag, and faster for tags of one byte, which all of ours
// are. It returns the number 0, which is no field, as it is.
func consumeTag(b []byte) (protowire.Number, protowire.Type, int) {
	if b[0] < 0x80 {
		return protowire.Number(b[0] >> 3), protowire.Type(b[0] & 7), 1
	}
	return protowire.ConsumeTag(b)
}

// consumeText is protowire.ConsumeBytes of a text, and faster for short ones. n is negative
// for a text that is cut short or not UTF-8.
func consumeText(b []byte) (text []byte, n int) {
	if len(b) > 0 && int(b[0]) < min(0x80, len(b)) {
		n = 1 + int(b[0])
		text = b[1:n:n]
	} else if text, n = protowire.ConsumeBytes(b); n < 0 {
		return nil, n
	}
	if !utf8.Valid(text) {
		return nil, -1
	}
	return text, n
}

func (f *entryFields) scanBody(b []byte) bool {
	var last protowire.Number
	for len(b) > 0 {
		num, typ, n := consumeTag(b)
		if n < 0 || num <= last { // in order, as we write them, and so never twice
			return false
		}
		b, last = b[n:], num
		if text := f.text(num); text != nil {
			if typ != protowire.BytesType {
				return false
			}
			if *text, n = consumeText(b); n < 0 {
				return false
			}
			b = b[n:]
			continue
		}
		var v uint64
		switch {
		case typ == protowire.VarintType && (num == 4 || num == 8 || num == 11 || num == 12):
			v, n = protowire.ConsumeVarint(b)
		case typ == protowire.Fixed32Type && num == 15:
			f.listTag, n = protowire.ConsumeFixed32(b)
		default:
			return false
		}
		if n < 0 {
			return false
		}
		b = b[n:]
		switch num {
		case 8:
			f.priority = uint32(v)
		case 11:
			f.from = int64(v)
		case 12:
			f.until = int64(v)
		}
	}
	return true
}

// text returns where the text with a field number goes, or nil if it is no text.
func (f *entryFields) text(num protowire.Number) *[]byte {
	switch num {
	case 1:
		return &f.id
	case 2:
		return &f.list
	case 3:
		return &f.plate
	case 5:
		return &f.country
	case 6:
		return &f.reason
	case 7:
		return &f.action
	case 9:
		return &f.caseRef
	case 10:
		return &f.requester
	case 13:
		return &f.vehicle
	case 14:
		return &f.safety
	}
	return nil
}

// generated fills f from what the generated decoder made of a value.
func (f *entryFields) generated(p *controlpb.Entry) {
	*f = entryFields{
		id:        []byte(p.GetId()),
		list:      []byte(p.GetList()),
		listTag:   p.GetListTag(),
		plate:     []byte(p.GetPlate()),
		country:   []byte(p.GetCountry()),
		reason:    []byte(p.GetReason()),
		action:    []byte(p.GetAction()),
		caseRef:   []byte(p.GetCaseRef()),
		requester: []byte(p.GetRequester()),
		vehicle:   []byte(p.GetVehicle()),
		safety:    []byte(p.GetSafety()),
		priority:  p.GetPriority(),
		from:      p.GetValidFrom(),
		until:     p.GetValidUntil(),
	}
}
