//go:build unix

package services

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"vigie/deploy/kafka"
)

// complete is the file in a folder of jars that is written last; it holds the digest of the
// pom that the jars came from.
const complete = "complete"

// KafkaJars returns a folder with the jars of the Kafka broker, for KafkaConfig.Jars. They
// are fetched with Maven (mvn, Java 17) the first time and kept in the user's cache folder:
// about 55 MB and half a minute. Their checksums are verified. Messages about a fetch go to
// progress.
func KafkaJars(ctx context.Context, progress io.Writer) (dir string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("services: Kafka's jars need a cache folder: %w", err)
	}
	return kafkaJars(ctx, filepath.Join(cache, "vigie"), progress, fetchJars)
}

// HaveKafkaJars reports whether KafkaJars would find the jars without fetching them.
func HaveKafkaJars() bool {
	cache, err := os.UserCacheDir()
	return err == nil && isComplete(filepath.Join(cache, "vigie", jarsFolder))
}

const jarsFolder = "kafka-" + KafkaVersion

func pomDigest() string {
	sum := sha256.Sum256(kafka.POM)
	return hex.EncodeToString(sum[:])
}

func isComplete(dir string) bool {
	got, err := os.ReadFile(filepath.Join(dir, complete))
	return err == nil && string(got) == pomDigest()
}

// kafkaJars is KafkaJars with its cache and its way to fetch given. A fetch happens in a
// folder of its own that is renamed when it is whole: one that was cut short leaves nothing
// that could be taken for the jars, and two at a time do not meet.
func kafkaJars(ctx context.Context, cache string, progress io.Writer, fetch func(context.Context, string) error) (string, error) {
	dir := filepath.Join(cache, jarsFolder)
	if isComplete(dir) {
		return dir, nil
	}
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("services: fetch the jars of Kafka %s: %w", KafkaVersion, err)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return fail(err)
	}
	tmp, err := os.MkdirTemp(cache, jarsFolder+".fetch-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(progress, "fetching the jars of Kafka %s with Maven (once, about 55 MB) …\n", KafkaVersion)
	if err := fetch(ctx, tmp); err != nil {
		return fail(err)
	}
	if err := os.WriteFile(filepath.Join(tmp, complete), []byte(pomDigest()), 0o644); err != nil {
		return fail(err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fail(err)
	}
	if isComplete(dir) { // somebody was faster
		return dir, nil
	}
	// What is there came from another pom, or is damaged.
	if err := os.RemoveAll(dir); err != nil {
		return fail(err)
	}
	if err := os.Rename(tmp, dir); err != nil && !(errors.Is(err, fs.ErrExist) && isComplete(dir)) {
		return fail(err)
	}
	return dir, nil
}

// fetchJars copies the jars that the pom names into dir.
func fetchJars(ctx context.Context, dir string) error {
	work, err := os.MkdirTemp("", "vigie-maven-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), kafka.POM, 0o644); err != nil {
		return err
	}
	// -C: a wrong checksum is an error, not a warning.
	cmd := exec.Command("mvn", "-B", "-q", "-C", "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+dir)
	cmd.Dir = work
	if err := run(ctx, cmd); err != nil {
		return fmt.Errorf("mvn dependency:copy-dependencies: %w", err)
	}
	return nil
}
