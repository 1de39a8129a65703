package plate

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// containerForm is the form of a container code, its check digit apart.
var containerForm = regexp.MustCompile(`^[A-Z]{3}[UJZ][0-9]{7}$`)

// modelContainer is ContainerCheckDigit on text, with the table of values written out as
// ISO 6346 prints it.
func modelContainer(code string) (digit int, ok bool) {
	if !containerForm.MatchString(code) {
		return 0, false
	}
	values := map[rune]int{
		'A': 10, 'B': 12, 'C': 13, 'D': 14, 'E': 15, 'F': 16, 'G': 17, 'H': 18, 'I': 19, 'J': 20, 'K': 21, 'L': 23, 'M': 24,
		'N': 25, 'O': 26, 'P': 27, 'Q': 28, 'R': 29, 'S': 30, 'T': 31, 'U': 32, 'V': 34, 'W': 35, 'X': 36, 'Y': 37, 'Z': 38,
		'0': 0, '1': 1, '2': 2, '3': 3, '4': 4, '5': 5, '6': 6, '7': 7, '8': 8, '9': 9,
	}
	sum, weight := 0, 1
	for _, c := range code[:10] {
		sum += values[c] * weight
		weight *= 2
	}
	if digit = sum % 11; digit == 10 {
		digit = 0
	}
	return digit, true
}

// The digits were computed with another program; the first three codes are real ones.
func TestContainer(t *testing.T) {
	for _, tt := range []struct {
		name, code string
		right      int // -1: not the form of a container code
	}{
		{"the example of every textbook", "CSQU 305438-3", 3},
		{"on the door", "csqu3054383", 3},
		{"Maersk", "MSKU 907032-3", 3},
		{"Hapag-Lloyd", "HLXU 200841-9", 9},
		{"Triton, remainder 10", "TRLU 000004-0", 0},
		{"equipment", "CSQJ 305438-6", 6},
		{"trailer", "CSQZ 305438-7", 7},
		{"letters of every skip", "KLVU 000000-8", 8},
		{"a digit mistyped", "CSQU 305438-4", 3},
		{"two digits swapped", "CSQU 350438-3", 8},
		{"another category", "CSQA 305438-3", -1},
		{"a digit in the owner", "CS0U 305438-3", -1},
		{"a letter in the serial", "CSQU 3O5438-3", -1},
		{"a letter for the check digit", "CSQU 305438-B", -1},
		{"no check digit", "CSQU 305438", -1},
		{"twelve characters", "CSQU 305438-31", -1},
		{"eleven digits", "12345678901", -1},
		{"a plate", "AB-123-CD", -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := mustParse(t, tt.code)
			digit, ok := k.ContainerCheckDigit()
			if ok != (tt.right >= 0) || ok && digit != tt.right || !ok && digit != 0 {
				t.Errorf("ContainerCheckDigit = %d, %t; want %d", digit, ok, tt.right)
			}
			s := k.String()
			good := tt.right >= 0 && int(s[len(s)-1]-'0') == tt.right
			if k.IsContainer() != good {
				t.Errorf("IsContainer = %t; want %t", k.IsContainer(), good)
			}
			if tt.right < 0 {
				return
			}
			// No country has a say.
			want := map[bool]Grade{true: Valid, false: Invalid}[good]
			for _, c := range []string{"FR", "DE", "BE", "MT", "US", "RE"} {
				if got := k.Syntax(mustCountry(t, c)); got != want {
					t.Errorf("Syntax in %s = %v; want %v", c, got, want)
				}
			}
			if got := k.Syntax(0); got != min(want, Possible) {
				t.Errorf("Syntax in the unknown country = %v; want %v", got, min(want, Possible))
			}
		})
	}
	for _, k := range []Key{0, 1, containerFrom - 1, containerFrom, containerTo - 1, containerTo, 1<<64 - 1} {
		if k.IsContainer() {
			t.Errorf("key %d, no plate, is a container", uint64(k))
		}
	}
}

// Random codes, one in ten of which has the right check digit, and texts near them.
func TestContainerAgainstModel(t *testing.T) {
	const seed = 20260319
	r := rand.New(rand.NewPCG(seed, 1))
	right := 0
	for range 20_000 {
		b := make([]byte, containerLen)
		for i := range b {
			switch {
			case i == 3:
				b[i] = "UJZ"[r.IntN(3)]
			case i < 3:
				b[i] = letters[r.IntN(len(letters))]
			default:
				b[i] = digits[r.IntN(len(digits))]
			}
		}
		if r.IntN(4) == 0 { // mostly no code any more
			b[r.IntN(len(b))] = alphabet[1+r.IntN(36)]
		}
		checkContainer(t, pack(string(b)))
		if pack(string(b)).IsContainer() {
			right++
		}
	}
	if right < 1000 || right > 2500 {
		t.Errorf("seed %d: %d of 20,000 codes have the right check digit", seed, right)
	}
}

// checkContainer compares k with the model.
func checkContainer(t *testing.T, k Key) {
	t.Helper()
	s := k.String()
	want, ok := modelContainer(s)
	if got, gotOK := k.ContainerCheckDigit(); got != want || gotOK != ok {
		t.Fatalf("ContainerCheckDigit(%s) = %d, %t; want %d, %t", s, got, gotOK, want, ok)
	}
	if good := ok && strings.HasSuffix(s, string(rune('0'+want))); k.IsContainer() != good {
		t.Fatalf("IsContainer(%s) = %t; want %t", s, k.IsContainer(), good)
	}
}

func TestContainerAllocations(t *testing.T) {
	for _, p := range []string{"CSQU3054383", "CSQU3054384", "AB123CD", "12345678901"} {
		k := mustParse(t, p)
		if n := testing.AllocsPerRun(100, func() { _ = k.IsContainer(); _ = k.Syntax(fr) }); n != 0 {
			t.Errorf("IsContainer and Syntax of %s allocate %v times; want 0", p, n)
		}
	}
}

// FuzzContainer: whatever text, and whatever number is taken for a key, the model agrees,
// and the code with the digit that ContainerCheckDigit names is a container.
func FuzzContainer(f *testing.F) {
	for _, s := range []string{"CSQU3054383", "CSQU3054384", "AB123CD", "ABCZ0000000", "ABCJ9999999", "AAAUAAAAAAA"} {
		f.Add(s, uint64(pack(s)))
	}
	f.Add("", uint64(containerFrom))
	f.Fuzz(func(t *testing.T, s string, n uint64) {
		checkContainer(t, Key(n))
		k, err := Parse(s)
		if err != nil {
			return
		}
		checkContainer(t, k)
		if digit, ok := k.ContainerCheckDigit(); ok {
			if k = k - k%base + Key(code0+digit); !k.IsContainer() || k.Syntax(fr) != Valid || k.Syntax(0) != Possible {
				t.Fatalf("%s with its right check digit is no container", k.String())
			}
		}
	})
}
