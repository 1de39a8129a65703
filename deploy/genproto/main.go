// Command genproto turns the module's .proto files into Go without protoc or any other
// program on the PATH: the compiler and the Go generator are libraries pinned in go.mod,
// so every machine writes the same bytes.
//
//	go run ./deploy/genproto                  write the .pb.go beside every known schema
//	go run ./deploy/genproto a/b.proto …      only these; paths are relative to the module root
//	go run ./deploy/genproto -check           write nothing; exit 1 naming each stale file
//
// It refuses to guess: a schema that is absent or does not compile is an error, and the
// other schemas are still written.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"github.com/bufbuild/protocompile/reporter"
	gengo "google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// schemas are all the .proto files of the module; TestEverySchemaIsListed holds it so.
var schemas = []string{
	"sensors/readpb/read.proto",
	"watchlist/control/controlpb/control.proto",
	"stream/alert/alertpb/alert.proto",
}

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stderr))
}

// run is main with its surroundings passed in. It returns the exit code: 0 done or current,
// 1 stale or not generated, 2 wrong usage.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("genproto", flag.ContinueOnError)
	flags.SetOutput(stderr)
	check := flags.Bool("check", false, "write nothing; exit 1 when a generated file is stale")
	root := flags.String("root", "", "module root (default: the folder with go.mod, here or above)")
	flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: go run ./deploy/genproto [-check] [-root dir] [file.proto ...]\n\n"+
			"Without files: %s\n\n", strings.Join(schemas, " "))
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	dir := *root
	if dir == "" {
		var err error
		if dir, err = moduleRoot(); err != nil {
			fmt.Fprintln(stderr, "genproto:", err)
			return 2
		}
	}
	files := flags.Args()
	if len(files) == 0 {
		files = schemas
	}
	code := 0
	for _, file := range files {
		var err error
		if *check {
			err = verify(ctx, dir, file)
		} else {
			err = write(ctx, dir, file)
		}
		if err != nil {
			fmt.Fprintln(stderr, "genproto:", err)
			code = 1
		}
	}
	return code
}

// moduleRoot is the nearest folder, from the working directory upwards, that holds go.mod.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod here or above; run it inside the module or pass -root")
		}
		dir = parent
	}
}

// verify reports every generated file of one schema that differs from what write would leave.
func verify(ctx context.Context, root, file string) error {
	out, err := generate(ctx, root, file)
	if err != nil {
		return err
	}
	var stale []error
	for name, want := range out {
		got, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			stale = append(stale, fmt.Errorf("%s is missing: run `go run ./deploy/genproto %s`", name, file))
		case err != nil:
			stale = append(stale, err)
		case !bytes.Equal(got, want):
			stale = append(stale, fmt.Errorf("%s is stale: run `go run ./deploy/genproto %s`", name, file))
		}
	}
	return errors.Join(stale...)
}

// write generates one schema. A file that already holds the same bytes is left alone, so
// that its time stamp does not invalidate build caches; others are replaced whole.
func write(ctx context.Context, root, file string) error {
	out, err := generate(ctx, root, file)
	if err != nil {
		return err
	}
	for name, content := range out {
		target := filepath.Join(root, filepath.FromSlash(name))
		if old, err := os.ReadFile(target); err == nil && bytes.Equal(old, content) {
			continue
		}
		if err := replace(target, content); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// replace writes content beside target and renames it, so a reader (another build, an
// editor) sees the old file or the new one.
func replace(target string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(target), ".genproto-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), target)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// generate compiles file, a path relative to root, and returns its Go files by path
// relative to root. Imports resolve from root and from the well-known types.
func generate(ctx context.Context, root, file string) (map[string][]byte, error) {
	file = path.Clean(filepath.ToSlash(file))
	if !fs.ValidPath(file) {
		return nil, fmt.Errorf("%s: want a path relative to the module root", file)
	}
	if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: no such schema below the module root", file)
		}
		return nil, err
	}
	linked, err := compile(ctx, root, file)
	if err != nil {
		return nil, err
	}
	req := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{file},
		Parameter:      proto.String("paths=source_relative"),
		ProtoFile:      withImports(nil, map[string]bool{}, linked),
		// No CompilerVersion: the header then says "protoc (unknown)", the same everywhere,
		// rather than naming a protoc that took no part in it.
	}
	gen, err := protogen.Options{}.New(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, f := range gen.Files {
		if f.Generate {
			gengo.GenerateFile(gen, f)
		}
	}
	gen.SupportedFeatures = gengo.SupportedFeatures
	gen.SupportedEditionsMinimum = gengo.SupportedEditionsMinimum
	gen.SupportedEditionsMaximum = gengo.SupportedEditionsMaximum
	resp := gen.Response()
	if resp.Error != nil {
		return nil, fmt.Errorf("%s: %s", file, resp.GetError())
	}
	out := make(map[string][]byte, len(resp.File))
	for _, f := range resp.File {
		out[f.GetName()] = []byte(f.GetContent())
	}
	return out, nil
}

// compile parses and links one schema and gathers every mistake in it, each as
// "path:line:column: what".
func compile(ctx context.Context, root, file string) (linker.File, error) {
	var found []error
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			ImportPaths: []string{root},
		}),
		// The generator copies the schema's comments; they live in the source info.
		SourceInfoMode: protocompile.SourceInfoStandard,
		Reporter: reporter.NewReporter(
			func(err reporter.ErrorWithPos) error { found = append(found, err); return nil },
			nil,
		),
	}
	files, err := compiler.Compile(ctx, file)
	if len(found) > 0 {
		return nil, errors.Join(found...)
	}
	if err != nil {
		return nil, err
	}
	return files[0], nil
}

// withImports appends the descriptors of fd's imports, then fd's own: the plugin protocol
// wants each file after all those it imports.
func withImports(dst []*descriptorpb.FileDescriptorProto, seen map[string]bool, fd protoreflect.FileDescriptor) []*descriptorpb.FileDescriptorProto {
	if seen[fd.Path()] {
		return dst
	}
	seen[fd.Path()] = true
	imports := fd.Imports()
	for i := range imports.Len() {
		dst = withImports(dst, seen, imports.Get(i).FileDescriptor)
	}
	return append(dst, protoutil.ProtoFromFileDescriptor(fd))
}
