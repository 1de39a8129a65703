package watchlist_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"vigie/watchlist"
	"vigie/watchlist/plate"
)

func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{
		"stolen": true, "a": true, "7": true, "zone-59_nord": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "-a": false, "_a": false, "Stolen": false,
		"a/b": false, "a b": false, "a.b": false, "é": false, "a\n": false, "{q:a}": false,
	} {
		if got := watchlist.ValidID(id); got != want {
			t.Errorf("ValidID(%q) = %v, want %v", id, got, want)
		}
	}
}

func TestNewSalt(t *testing.T) {
	salt, err := watchlist.NewSalt(bytes.NewReader([]byte("0123456789abcdefg")))
	if string(salt) != "0123456789abcdef" || err != nil {
		t.Errorf("NewSalt = %q, %v", salt, err)
	}
	broken := errors.New("broken")
	if salt, err := watchlist.NewSalt(iotest.ErrReader(broken)); salt != nil || !errors.Is(err, broken) {
		t.Errorf("NewSalt of a broken reader = %q, %v", salt, err)
	}
	if _, err := watchlist.NewSalt(rand.Reader); err != nil {
		t.Error(err)
	}
}

// TestEntryID pins ids: they are stored, so a change of EntryID would orphan
// every entry there is. The digests were computed with another program.
func TestEntryID(t *testing.T) {
	fr, _ := plate.ParseCountry("FR")
	it, _ := plate.ParseCountry("I")
	key := func(s string) plate.Key {
		k, err := plate.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	other, salted := stolen(), stolen()
	other.ID = "stolen2"
	salted.Salt = []byte("0123456789abcdeg")
	tests := []struct {
		name  string
		l     *watchlist.List
		plate string
		c     plate.Country
		want  string
	}{
		{"first", stolen(), "AB-123-CD", fr, "ipannqrr7qxxi4ntc7u2wc4zhu"},
		{"same, written otherwise", stolen(), "ab123cd", fr, "ipannqrr7qxxi4ntc7u2wc4zhu"},
		{"other plate", stolen(), "AB-123-CE", fr, "py23di4e6bznif4kt55ay6fohq"},
		{"other country", stolen(), "AB-123-CD", it, "quasa4dh2ktdrd5kslqtfrmqi4"},
		{"no country", stolen(), "AB-123-CD", 0, "m4qzmvrakyfxrvcig5c3xss7ja"},
		{"other list", other, "AB-123-CD", fr, "75lgj5ohtdx2kwstfakc6dx6ne"},
		{"other salt", salted, "AB-123-CD", fr, "qrezuqegajdd3flblkxv6kho7u"},
	}
	for _, tt := range tests {
		got := watchlist.EntryID(tt.l, key(tt.plate), tt.c)
		if got != tt.want {
			t.Errorf("%s: EntryID = %q, want %q", tt.name, got, tt.want)
		}
		if len(got) != watchlist.EntryIDLen || !watchlist.ValidID(got) {
			t.Errorf("%s: EntryID = %q, not an id of %d characters", tt.name, got, watchlist.EntryIDLen)
		}
	}

	defer func() {
		if recover() == nil {
			t.Error("EntryID of a list without a salt did not panic")
		}
	}()
	watchlist.EntryID(&watchlist.List{ID: "stolen"}, key("AB-123-CD"), fr)
}

func TestOwns(t *testing.T) {
	l := stolen()
	e, errs := watchlist.NewEntry(l, input(), now)
	if errs != nil {
		t.Fatal(errs)
	}
	again := stolen()
	again.Salt = []byte("fedcba9876543210")
	renamed := stolen()
	renamed.Name, renamed.Version = "Volés", 9
	other := stolen()
	other.ID = "other"
	untagged := *e
	untagged.ListTag = 0
	saltless := &watchlist.List{ID: "stolen"}

	if got, want := l.Tag(), uint32(323361536); got != want { // computed with another program
		t.Errorf("Tag() = %d, want %d", got, want)
	}
	tests := []struct {
		name string
		l    *watchlist.List
		e    *watchlist.Entry
		want bool
	}{
		{"its list", l, e, true},
		{"its list, renamed", renamed, e, true},
		{"made anew under the same id", again, e, false},
		{"other id", other, e, false},
		{"other id, no tag", other, &untagged, false},
		{"made anew, no tag", again, &untagged, true},
		{"no salt", saltless, e, false},
		{"no salt, no tag", saltless, &untagged, true},
	}
	for _, tt := range tests {
		if got := tt.l.Owns(tt.e); got != tt.want {
			t.Errorf("%s: Owns = %v, want %v", tt.name, got, tt.want)
		}
	}
}
