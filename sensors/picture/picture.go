// Package picture makes the pictures of sensors safe to keep and to show: it decodes what came
// and writes a JPEG of its own. No byte of a sensor is passed on, so that neither position and
// serial number in the EXIF data nor a script behind the last byte of a file reaches a patrol.
//
// A picture is a help for judging a read, never a condition of it: whoever gets an error goes on
// without.
package picture

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"image/png"
)

// Limits bound a picture. The zero value of a field takes the default.
type Limits struct {
	InBytes int // of a picture as it came; 8 MiB
	Pixels  int // of a picture as it came; 40 million
	// Memory is the most bytes that decoding may take, by what the header says. 64 MiB, which
	// is 22 million pixels of an ordinary JPEG and 4 million of a progressive one.
	Memory int
	Side   int // longest side of a picture that is kept, in pixels; larger ones are made smaller; 1,600
	// OutBytes is the most bytes of a picture that is kept; 900 KiB, so that it fits into a
	// Kafka record of the default size. One that is larger is written with less quality, then
	// smaller.
	OutBytes int
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		v   *int
		def int
	}{
		{&l.InBytes, 8 << 20}, {&l.Pixels, 40_000_000}, {&l.Memory, 64 << 20}, {&l.Side, 1600}, {&l.OutBytes, 900 << 10},
	} {
		if *f.v <= 0 {
			*f.v = f.def
		}
	}
	return l
}

// Errors of Clean.
var (
	ErrTooLarge = errors.New("picture: larger than the limit")
	ErrFormat   = errors.New("picture: neither JPEG nor PNG, or damaged")
)

// qualities are tried in turn until the picture is small enough.
var qualities = [...]int{85, 65, 40}

// maxScans bounds the passes over a picture that a JPEG may ask for; encoders write at most a dozen.
// A hundred thousand fit into a file and would keep a processor busy for minutes.
const maxScans = 32

// Clean returns the picture of raw, a JPEG or PNG, as a new JPEG. It keeps nothing of raw.
// Its errors are ErrTooLarge and ErrFormat.
func Clean(raw []byte, limits Limits) ([]byte, error) {
	l := limits.withDefaults()
	img, err := decode(raw, l)
	if err != nil {
		return nil, err
	}
	for side := l.Side; ; side /= 2 {
		img = shrink(img, side)
		for _, q := range qualities {
			var out bytes.Buffer
			if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: q}); err != nil {
				return nil, ErrFormat
			}
			if out.Len() <= l.OutBytes {
				return out.Bytes(), nil
			}
		}
		if side <= 1 {
			return nil, ErrTooLarge
		}
	}
}

// decode unpacks raw, of which it believes nothing before it has looked at the header.
func decode(raw []byte, l Limits) (image.Image, error) {
	if len(raw) > l.InBytes {
		return nil, ErrTooLarge
	}
	isJPEG := bytes.HasPrefix(raw, []byte{0xff, 0xd8})
	if !isJPEG && !bytes.HasPrefix(raw, []byte("\x89PNG")) {
		return nil, ErrFormat
	}
	config, read := png.DecodeConfig, png.Decode
	if isJPEG {
		config, read = jpeg.DecodeConfig, jpeg.Decode
	}
	c, err := config(bytes.NewReader(raw))
	switch {
	case err != nil || c.Width <= 0 || c.Height <= 0:
		return nil, ErrFormat
	case c.Width > l.Pixels/c.Height:
		return nil, ErrTooLarge
	}
	perPixel := bytesPerPixel(c.ColorModel)
	if isJPEG {
		// In the data of a picture 0xff is always followed by zero or a restart mark, so that
		// nothing is overlooked here; the same bytes in a comment only make the guess higher.
		if bytes.Contains(raw, []byte{0xff, 0xc2}) {
			perPixel += 4 * 4 // progressive: the coefficients of all components are kept
		}
		if bytes.Count(raw, []byte{0xff, 0xda}) > maxScans {
			return nil, ErrTooLarge
		}
	}
	if perPixel*c.Width > l.Memory/c.Height {
		return nil, ErrTooLarge
	}
	img, err := read(bytes.NewReader(raw))
	if err != nil {
		return nil, ErrFormat
	}
	switch img.(type) {
	case *image.YCbCr, *image.Gray:
		return img, nil
	}
	// What is transparent lies on white, as a viewer would show it.
	flat := image.NewRGBA(image.Rect(0, 0, c.Width, c.Height))
	draw.Draw(flat, flat.Rect, image.White, image.Point{}, draw.Src)
	draw.Draw(flat, flat.Rect, img, img.Bounds().Min, draw.Over)
	return flat, nil
}

// bytesPerPixel bounds what decoding takes for each pixel, its copy for other than the usual
// models included.
func bytesPerPixel(m color.Model) int {
	const flat = 4
	switch m { // twice for what may come from a PNG: an interlaced one is put together from a second copy
	case color.YCbCrModel:
		return 3
	case color.GrayModel:
		return 2
	case color.NRGBA64Model, color.RGBA64Model:
		return 2*8 + flat
	default:
		return 2*4 + flat
	}
}

// shrink returns img with no side longer than side, img itself when it has none. Each pixel is
// the mean of those that it stands for.
func shrink(img image.Image, side int) image.Image {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	if w <= side && h <= side {
		return img
	}
	if w >= h {
		w, h = side, max(1, h*side/w)
	} else {
		w, h = max(1, w*side/h), side
	}
	rect := image.Rect(0, 0, w, h)
	switch src := img.(type) {
	case *image.Gray:
		dst := image.NewGray(rect)
		mean(plane{dst.Pix, dst.Stride, w, h}, plane{src.Pix, src.Stride, b.Dx(), b.Dy()}, 1)
		return dst
	case *image.YCbCr:
		dst := image.NewYCbCr(rect, src.SubsampleRatio)
		mean(plane{dst.Y, dst.YStride, w, h}, plane{src.Y, src.YStride, b.Dx(), b.Dy()}, 1)
		cw, ch := chroma(dst)
		sw, sh := chroma(src)
		mean(plane{dst.Cb, dst.CStride, cw, ch}, plane{src.Cb, src.CStride, sw, sh}, 1)
		mean(plane{dst.Cr, dst.CStride, cw, ch}, plane{src.Cr, src.CStride, sw, sh}, 1)
		return dst
	case *image.RGBA:
		dst := image.NewRGBA(rect)
		mean(plane{dst.Pix, dst.Stride, w, h}, plane{src.Pix, src.Stride, b.Dx(), b.Dy()}, 4)
		return dst
	}
	return img // decode makes no others
}

// chroma is the size of the colour planes of an image that begins at 0, 0.
func chroma(img *image.YCbCr) (w, h int) {
	last := img.Rect.Max.Sub(image.Pt(1, 1))
	at := img.COffset(last.X, last.Y)
	return at%img.CStride + 1, at/img.CStride + 1
}

// plane is a rectangle of values.
type plane struct {
	pix          []byte
	stride, w, h int
}

// mean fills dst with the means of the rectangles of src that its places stand for; n is the
// number of values in one place. Where src is not larger a place is taken as it is.
func mean(dst, src plane, n int) {
	for y := range dst.h {
		y0 := y * src.h / dst.h
		y1 := max((y+1)*src.h/dst.h, y0+1)
		out := dst.pix[y*dst.stride:]
		for x := range dst.w {
			x0 := x * src.w / dst.w
			x1 := max((x+1)*src.w/dst.w, x0+1)
			for k := range n {
				sum := 0
				for v := y0; v < y1; v++ {
					row := src.pix[v*src.stride:]
					for u := x0; u < x1; u++ {
						sum += int(row[u*n+k])
					}
				}
				out[x*n+k] = byte(sum / ((y1 - y0) * (x1 - x0)))
			}
		}
	}
}
