package plate

import "strings"

// scheme describes the plates of one country.
type scheme struct {
	country string // ISO 3166-1 alpha-2
	series  []series
	// personal is the greatest length of personal plates on which the country lets its
	// drivers write what they like, so that any text up to it is Possible; 0 for none.
	personal int
}

// series is a family of plates that obey the same rules. A pattern gives the places
// without separators, and patterns are separated by spaces:
//
//	l m   a letter of the set l or m of the series, by default any
//	d n   a digit; a digit other than 0
//	a     a letter or a digit
//	[x]   x or nothing
//	A 1   any other character: itself
//
// A text that differs in a character that stands for itself does not belong to the series
// at all; one with a letter outside the set or with 0 for n, or that breaks the rule, is
// graded Possible.
type series struct {
	patterns string
	l, m     string
	rule     func(text) bool
	loose    bool // known in outline only: Possible at best
}

// Sets of letters that several schemes use.
const (
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
	noQ     = "ABCDEFGHIJKLMNOPRSTUVWXYZ"
	noIO    = "ABCDEFGHJKLMNPQRSTUVWXYZ"
	noIOQ   = "ABCDEFGHJKLMNPRSTUVWXYZ"
	noIOU   = "ABCDEFGHJKLMNPQRSTVWXYZ"

	// The letters that Cyrillic and Latin share, twelve of them in Russia and Bulgaria
	// (GOST R 50577, ABEKMHOPCTYX), with I and without Y in Ukraine and Belarus.
	cyrillic = "ABCEHKMOPTXY"
	eastSlav = "ABCEHIKMOPTX"

	// The letters that Greek and Latin share.
	greek = "ABEHIKMNOPTXYZ"
)

// schemes is what Syntax knows. First come the countries described in full, with the law
// that says so; then those of which only the common series are described, from public
// summaries (Wikipedia, "Vehicle registration plates of ...", and the like): there, a
// vehicle of the State or a diplomat may be graded Invalid.
var schemes = []scheme{
	// France. SIV, since 2009: arrêté du 9 février 2009 relatif aux modalités
	// d'immatriculation des véhicules. FNI, 1950 to 2009, still on the road: arrêté du 5
	// novembre 1984. Diplomatic plates: the code of the mission, CMD for its head, CD, C for
	// consuls, K for staff, and a number.
	{country: "FR", series: []series{
		{patterns: "lldddll", l: noIOU, rule: sivNumber},                                 // AB-123-CD; WW- provisional
		{patterns: "Wdddll", l: noIOU, rule: garageNumber},                               // W-123-AB, garage
		{patterns: "l[l]d[d][d]l", l: noIOU},                                             // AB-12-C, moped
		{patterns: "n[d][d][d]l[l][l]dd", l: noIO, rule: department},                     // 1234 AB 75
		{patterns: "n[d][d][d]l[l][l]2m", l: noIO, m: "AB"},                              // 1234 AB 2A, Corsica
		{patterns: "n[d][d][d]l[l][l]97n", l: noIO, rule: overseas},                      // 123 AB 974
		{patterns: "[d][d]dCMD[d][d]d [d][d]dCD[d][d]d [d][d]dC[d][d]d [d][d]dK[d][d]d"}, // 123 CD 45
		{patterns: "ddddddd[d]", loose: true},                                            // armed forces
	}},

	// Italy, since 1994: Codice della strada, art. 100, and its Regolamento (DPR 495/1992),
	// art. 256 et seq. Before: the letters of the province and a number. The letters I O Q U
	// are not used.
	{country: "IT", series: []series{
		{patterns: "lldddll", l: "ABCDEFGHJKLMNPRSTVWXYZ"}, // AB 123 CD
		{patterns: "llddddd", l: "ABCDEFGHJKLMNPRSTVWXYZ"}, // AB 12345, motorcycle, older trailer
		{patterns: "Xaaaaa", loose: true},                  // moped
		// Before 1994: MI 123456, MI A12345, MI 1A2345, MI 12345A.
		{patterns: "lldddddd lllddddd lldldddd lldddddl", loose: true},
		{patterns: "EIllddd CCllddd AMllddd MMllddd GDFdddll CPdddd VFddddd", loose: true},
	}},

	// Germany: Fahrzeug-Zulassungsverordnung § 9 and annexes 1 to 3. One to three letters for
	// the district, one or two letters and one to four digits, together at most eight
	// characters, with E (electric) or H (historic) at the end. The key has lost where the
	// district ends. Y is the Bundeswehr. In outline: authorities, diplomats, and red and
	// short-term plates, which have no second group of letters.
	{country: "DE", series: []series{
		{patterns: "l[l][l]l[l]n[d][d][d] l[l][l]l[l]n[d][d][d]E l[l][l]l[l]n[d][d][d]H", rule: upToEight},
		{patterns: "Yn[d][d][d][d][d]"},
		{patterns: "l[l][l]d[d][d][d][d][d] 0ddd[d][d][d]", loose: true},
	}},

	// Spain: Reglamento General de Vehículos (Real Decreto 2822/1998), anexo XVIII. Since
	// 2000 four digits and three consonants, Ñ and Q left out; the same behind a letter for
	// mopeds (C), special (E) and historic (H) vehicles, trailers (R) and provisional plates
	// (P S V T). Before: the letters of the province.
	{country: "ES", series: []series{
		{patterns: "ddddlll mddddlll", l: "BCDFGHJKLMNPRSTVWXYZ", m: "CEHPRSTV"},
		{patterns: "l[l]ddddm[m] l[l]n[d][d][d][d][d]", m: noQ, rule: spanishProvince},
		{patterns: "DGPdddd[l][l] PGCdddd[l][l] CNPdddd[l][l] ETddddd[d] EAddddd[d]", loose: true},
		{patterns: "CDddddd CCddddd OIddddd TAddddd", loose: true}, // diplomats
	}},

	// Belgium: arrêté royal du 20 juillet 2001 and arrêté ministériel du 23 juillet 2001. An
	// index digit since 2010, before that without; a letter in its place for motorcycles (M),
	// oldtimers (O), trailers (Q), mopeds (S), taxis (T) and trade (Z). Personal plates have
	// one to eight characters.
	{country: "BE", personal: 8, series: []series{
		{patterns: "nlllddd"},              // 1-ABC-123
		{patterns: "lllddd dddlll"},        // ABC-123 1973 to 2008, 123-ABC 2008 to 2010
		{patterns: "mlllddd", m: "MOQSTZ"}, // M-ABC-123
	}},

	// Netherlands: Kentekenreglement, and the side codes of the RDW, the fourteen orders of
	// the groups. From the fourth on there are no vowels, no C and no Q; M, O and W stand
	// first only (motorcycles, semi-trailers, trailers).
	{country: "NL", series: []series{
		{patterns: "lmdddd ddddlm ddlmdd", l: "ABDEFGHJKLMNOPRSTUVWXZ", m: "ABDEFGHJKLMNPRSTUVXZ", rule: dutchWords}, // 1 to 3
		{patterns: "CDdddd"},
		{patterns: "lmddmm", l: dutchFirst, m: dutch + "Y", rule: dutchWords},  // 4
		{patterns: "lmmmdd ddlmmm", l: dutchFirst, m: dutch, rule: dutchWords}, // 5, 6
		{patterns: "ddlmmd dlmmdd", l: dutchFirst, m: dutch, rule: dutchWords}, // 7, 8
		{patterns: "lmdddm ldddmm", l: dutchFirst, m: dutch, rule: dutchWords}, // 9, 10
		{patterns: "lmmddm lddmmm", l: dutchFirst, m: dutch, rule: dutchWords}, // 11, 12
		{patterns: "dlmddd dddlmd", l: dutchFirst, m: dutch, rule: dutchWords}, // 13, 14
	}},

	// United Kingdom: Road Vehicles (Display of Registration Marks) Regulations 2001 and
	// DVLA leaflet INF104. No Q but as a prefix; no I in Great Britain; I or Z in every mark
	// of Northern Ireland. The two digits are the age: from 02 (March 2002) to 50 the year,
	// from 51 (September 2001) the year and 50.
	{country: "GB", series: []series{
		{patterns: "llddmmm", l: "ABCDEFGHJKLMNOPRSTUVWXY", m: "ABCDEFGHJKLMNOPRSTUVWXYZ", rule: britishAge},
		{patterns: "ln[d][d]mmm", l: "ABCDEFGHJKLMNPQRSTVWXY", m: british},        // A123 BCD, 1983 to 2001
		{patterns: "mmmn[d][d]l", l: "ABCDEFGHJKLMNPRSTVWXY", m: british},         // ABC 123D, 1963 to 1983
		{patterns: "l[l]n[d][d][d] llln[d][d] n[d][d][d]l[l] n[d][d]lll", l: noQ}, // dateless, and Northern Ireland
		{patterns: "lllnddd", l: noQ, rule: northernIreland},                      // ABZ 1234
		{patterns: "dddDddd dddXddd"},                                             // diplomats
		{patterns: "ddlldd", l: noQ},                                              // armed forces
		{patterns: "ddddd", loose: true},                                          // trade
	}},

	// Switzerland: Verkehrszulassungsverordnung (SR 741.51). The canton and
	// a number. In outline: army (M), administration (A), post (P), diplomats, and the
	// letters behind hired and trade plates.
	{country: "CH", series: []series{
		{patterns: "lln[d][d][d][d][d]", rule: swissCanton},
		{patterns: "lln[d][d][d][d][d]U lln[d][d][d][d][d]V", rule: swissCanton, loose: true},
		{patterns: "Mn[d][d][d][d][d] An[d][d][d][d] Pn[d][d][d][d]", loose: true},
		{patterns: "CDllddd[d][d][d] CClldd[d][d][d][d]", loose: true},
	}},

	// Luxembourg: Société nationale de circulation automobile. Two letters and four digits;
	// personal plates of four or five digits.
	{country: "LU", series: []series{
		{patterns: "lldddd", l: noIO},
		{patterns: "nddd[d]"},
		{patterns: "lddd[d][d] llddd", l: noIO, loose: true}, // older
	}},

	// Portugal: Decreto-Lei 54/2005 and Decreto-Lei 2/2020. Three pairs; K, W and Y only
	// since 2020, when two pairs became letters.
	{country: "PT", series: []series{
		{patterns: "lldddd ddddll ddlldd mmddmm", l: "ABCDEFGHIJLMNOPQRSTUVXZ"},
		{patterns: "l[l]ddddd[d] dddCDddd dddCCddd dddFMddd", loose: true}, // trailers, diplomats
	}},

	// Poland: regulation on the registration and marking of vehicles (rozporządzenie w
	// sprawie rejestracji i oznaczania pojazdów). Two letters for a city, three for a county;
	// Q is not used, nor B D I O Z behind them, and behind two letters stands a digit.
	// Personal plates: a letter, a digit, three to five letters of which the last two may be
	// digits. Motorcycles in outline.
	{country: "PL", series: []series{
		{patterns: "llddddd llddddm lldddmm lldmddd lldmmdd", l: noQ, m: polish},
		{patterns: "lllmddd lllddmm llldmdd lllddmd llldmmd lllmmdd", l: noQ, m: polish},
		{patterns: "lllddddd lllddddm llldddmm", l: noQ, m: polish},
		{patterns: "ldlll[l][l] ldll[l][l]d ldl[l][l]dd", l: noQ},
		{patterns: "lldddd lldddm llddmd llmddd lllddd lllmdd lllddm llldmd lllmddm lllmdmm", l: noQ, m: polish, loose: true},
	}},

	// Austria: Kraftfahrgesetz 1967 § 48. One or two letters for the district, then digits and
	// letters, or letters and digits on personal plates, at most eight characters with the
	// district; Q is not used. Digits alone for the State.
	{country: "AT", series: []series{
		{patterns: "l[l]n[d][d][d][d]l[l][l] l[l]l[l][l][l][l]n[d][d][d]", l: noQ, rule: upToEight},
		{patterns: "l[l]n[d][d][d][d][d]", loose: true},
	}},

	{country: "RO", series: []series{
		{patterns: "lldd[d]mmm ldd[d]mmm", m: noQ, rule: romanianCounty},
		{patterns: "l[l]ddd[d][d][d]", rule: romanianCounty, loose: true}, // provisional
	}},
	{country: "BG", series: []series{{patterns: "l[l]ddddll", l: cyrillic}}},
	{country: "GR", series: []series{
		{patterns: "lllnddd llln[d][d]", l: greek}, // cars, motorcycles
		{patterns: "lldddd", loose: true},          // before 1983
	}},
	{country: "RS", series: []series{{patterns: "llddd[d]ll"}}},
	{country: "HR", series: []series{{patterns: "llddd[d]l[l]", l: "ABCDEFGHIJKLMNOPRSTUVZ"}}, personal: 9},
	{country: "SK", series: []series{{patterns: "lldddll"}}, personal: 7},
	{country: "AL", series: []series{{patterns: "lldddll", l: noIOQ}}},
	{country: "GE", series: []series{{patterns: "lldddll lllddd"}}, personal: 7},

	{country: "LV", series: []series{{patterns: "lln[d][d][d]"}}, personal: 8},
	{country: "SE", series: []series{{patterns: "lllddd lllddm", l: swedish, m: "ABCDEFGHJKLMNPRSTUWXYZ"}}, personal: 7},
	{country: "FI", series: []series{{patterns: "ll[l]n[d][d]"}}, personal: 6},
	{country: "HU", series: []series{{patterns: "lllddd llllddd"}}, personal: 7},
	{country: "LT", series: []series{{patterns: "lllddd", l: "ABCDEFGHIJKLMNOPRSTUVYZ"}}, personal: 6},
	{country: "CY", series: []series{{patterns: "lllddd"}, {patterns: "l[l]d[d][d][d]", loose: true}}},
	{country: "MT", series: []series{{patterns: "lllddd"}}, personal: 9},

	{country: "CZ", series: []series{
		{patterns: "dlddddd dlldddd ELdddll", l: "ABCDEFHIJKLMNPRSTUVXYZ"}, // region digit and letter; electric
		{patterns: "dldddd llldddd", loose: true},                          // motorcycles; before 2001
	}, personal: 8},
	{country: "DK", series: []series{{patterns: "llddddd lldddd", l: noIOQ}}, personal: 7},
	{country: "NO", series: []series{{patterns: "llddddd lldddd", l: noIOQ}}, personal: 7},
	{country: "EE", series: []series{{patterns: "dddlll"}, {patterns: "dd[d]ll", loose: true}}, personal: 9},
	{country: "SI", series: []series{{patterns: "llllddd llddlll"}}, personal: 8},
	{country: "IE", series: []series{{patterns: "dd[d]l[l]n[d][d][d][d][d]", l: "CDEGHIKLMNORSTUWXY"}}},
	{country: "UA", series: []series{{patterns: "llddddll", l: eastSlav}}, personal: 8},
	{country: "TR", series: []series{{patterns: "ddldddd[d] ddllddd[d] ddllldd[d]", l: "ABCDEFGHIJKLMNOPRSTUVYZ", rule: turkishProvince}}},
	{country: "BA", series: []series{{patterns: "lddlddd", l: "AEJKMOT"}, {patterns: "dddldddd", loose: true}}},
	{country: "ME", series: []series{{patterns: "llllddd"}}, personal: 7},
	{country: "MK", series: []series{{patterns: "llddd[d]ll"}}},
	{country: "MD", series: []series{{patterns: "lllddd"}, {patterns: "llllddd", loose: true}}, personal: 7},
	{country: "BY", series: []series{{patterns: "ddddlld", l: eastSlav}}, personal: 8},
	{country: "RU", series: []series{{patterns: "ldddlldd[d]", l: cyrillic}, {patterns: "lldddd[d][d][d] ddddlldd[d] lldddldd[d]", loose: true}}},
	{country: "XK", series: []series{{patterns: "dddddll"}}},
	{country: "LI", series: []series{{patterns: "FLn[d][d][d][d]"}}},
}

// Letters of the Netherlands from side code 4, of Poland behind the district, of Great
// Britain before 2001, and of Sweden.
const (
	dutch      = "BDFGHJKLNPRSTVXZ"
	dutchFirst = "BDFGHJKLMNOPRSTVWXZ"
	polish     = "ACEFGHJKLMNPRSTUVWXY"
	british    = "ABCDEFGHJKLMNOPRSTUVWXY"
	swedish    = "ABCDEFGHJKLMNOPRSTUWXYZ"
)

// sivNumber: 001 to 999, and no pair SS on either side, an emblem that may not be shown
// (Code pénal, R645-1).
func sivNumber(t text) bool {
	return !t.equals(0, 2, "SS") && !t.equals(2, 5, "000") && !t.equals(5, 7, "SS")
}

// garageNumber: as sivNumber, with W alone on the left.
func garageNumber(t text) bool { return !t.equals(1, 4, "000") && !t.equals(4, 6, "SS") }

// department: the last two digits are a department of the mainland, 01 to 95, with 20,
// Corsica before 1976.
func department(t text) bool {
	n := t.number(t.len()-2, t.len())
	return n >= 1 && n <= 95
}

// overseas: the last three digits are 971 Guadeloupe, 972 Martinique, 973 Guyane, 974
// Réunion, 975 Saint-Pierre-et-Miquelon or 976 Mayotte.
func overseas(t text) bool { return t.c[MaxLen-1] <= '6' }

// upToEight is the limit of Germany and Austria.
func upToEight(t text) bool { return t.len() <= 8 }

// britishAge: 02 to 99; 51 came first, in September 2001.
func britishAge(t text) bool { return t.number(2, 4) >= 2 }

// northernIreland: one of the first three letters is I or Z.
func northernIreland(t text) bool {
	return strings.ContainsAny(string(t.bytes()[:3]), "IZ")
}

// dutchWords: letters that RDW does not issue together: initials of political parties,
// abuse, and those of the occupation. Four letters are two groups of two.
func dutchWords(t text) bool {
	b := t.bytes()
	for len(b) > 0 {
		n := 0
		for n < len(b) && b[n] >= 'A' {
			n++
		}
		if n == 0 {
			b = b[1:] // a digit
			continue
		}
		if n == 4 {
			n = 2
		}
		if dutchBanned(string(b[:n])) {
			return false
		}
		b = b[n:]
	}
	return true
}

func dutchBanned(group string) bool {
	switch group {
	case "GVD", "KKK", "KVT", "LPF", "NSB", "PKK", "PSV", "TBS", "PVV", "SGP", "VVD", "BBB":
		return true
	}
	return strings.Contains(group, "SS") || strings.Contains(group, "SD") || strings.Contains(group, "SA")
}

// The codes that some schemes begin with.
const (
	cantons   = "AG AI AR BE BL BS FR GE GL GR JU LU NE NW OW SG SH SO SZ TG TI UR VD VS ZG ZH"
	counties  = "B AB AG AR BC BH BN BR BT BV BZ CJ CL CS CT CV DB DJ GJ GL GR HD HR IF IL IS MH MM MS NT OT PH SB SJ SM SV TL TM TR VL VN VS"
	provinces = "A AB AL AV B BA BI BU C CA CC CE CO CR CS CU GC GE GI GR GU H HU IB J L LE LO LU M MA ML MU NA O OR OU P PM PO S SA SE SG SH SO SS T TE TF TG TO V VA VI Z ZA"
)

// oneOf reports whether code is among the codes of list.
func oneOf(list string, code []byte) bool {
	for f := range strings.FieldsSeq(list) {
		if f == string(code) {
			return true
		}
	}
	return false
}

// swissCanton: the first two letters are one of the 26 cantons.
func swissCanton(t text) bool { return oneOf(cantons, t.bytes()[:2]) }

// romanianCounty: the letters in front are one of the 41 counties, or B for Bucharest.
func romanianCounty(t text) bool { return oneOf(counties, t.leading()) }

// spanishProvince: the letters in front are those of a province, of Ceuta or Melilla, or
// of a territory of the time (SH, TG).
func spanishProvince(t text) bool { return oneOf(provinces, t.leading()) }

// turkishProvince: 01 to 81.
func turkishProvince(t text) bool {
	n := t.number(0, 2)
	return n >= 1 && n <= 81
}
