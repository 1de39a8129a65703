package plate_test

import (
	"errors"
	"fmt"

	"vigie/watchlist/plate"
)

func ExampleParse() {
	typed, _ := plate.Parse("ab 123 cd")
	read, _ := plate.Parse("AB-123-CD")
	fmt.Println(typed == read, read.String())

	_, err := plate.Parse("No Plate")
	fmt.Println(errors.Is(err, plate.ErrSentinel))

	_, err = plate.Parse("AB?23CD")
	fmt.Println(err)
	// Output:
	// true AB123CD
	// true
	// plate: character 3 is not a letter or digit
}

// The gap of a German plate is lost in the key: the raw text tells the two towns apart.
func ExampleParse_gap() {
	uelzen, _ := plate.Parse("UE-MA 123")
	ueckermünde, _ := plate.Parse("UEM-A 123")
	fmt.Println(uelzen == ueckermünde)
	// Output: true
}

func ExampleKey_Fold() {
	wanted, _ := plate.Parse("QB-018-ZS")
	read, _ := plate.Parse("O8-OI8-25")
	fmt.Println(wanted == read, wanted.Fold() == read.Fold())
	// Output: false true
}

func ExampleKey_Syntax() {
	for _, raw := range []string{"AB-123-CD", "IO-123-CD", "A-123-BCD"} {
		k, _ := plate.Parse(raw)
		fmt.Println(raw, k.Syntax(country("FR")), k.Syntax(country("GB")), k.Syntax(country("")))
	}
	// Output:
	// AB-123-CD valid invalid possible
	// IO-123-CD possible invalid possible
	// A-123-BCD invalid valid possible
}

func ExampleKey_IsContainer() {
	for _, raw := range []string{"CSQU 305438-3", "CSQU 305438-8", "AB-123-CD"} {
		k, _ := plate.Parse(raw)
		right, form := k.ContainerCheckDigit()
		fmt.Println(raw, k.IsContainer(), form, right, k.Syntax(country("FR")))
	}
	// Output:
	// CSQU 305438-3 true true 3 valid
	// CSQU 305438-8 false true 3 invalid
	// AB-123-CD false false 0 valid
}

func ExampleRelate() {
	fmt.Println(plate.Relate(country("F"), country("FRA")))
	fmt.Println(plate.Relate(country("eu-fr"), country("I")))
	fmt.Println(plate.Relate(country("FR"), country("")))
	// Output:
	// same
	// different
	// unknown
}

func country(s string) plate.Country {
	c, ok := plate.ParseCountry(s)
	if !ok {
		panic("no such country")
	}
	return c
}
