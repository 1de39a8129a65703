package redisqueue

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/trim.lua
	trimLua string
	//go:embed lua/put.lua
	putLua string
	//go:embed lua/expire.lua
	expireLua string
	//go:embed lua/fence.lua
	fenceLua string
	//go:embed lua/create.lua
	createLua string
	//go:embed lua/step.lua
	stepLua string
	//go:embed lua/redo.lua
	redoLua string
	//go:embed lua/passage.lua
	passageLua string
	//go:embed lua/revise.lua
	reviseLua string
)

var (
	putScript     = newScript(trimLua + putLua)
	expireScript  = newScript(trimLua + expireLua)
	fenceScript   = newScript(fenceLua)
	createScript  = newScript(createLua)
	stepScript    = newScript(stepLua)
	redoScript    = newScript(redoLua)
	passageScript = newScript(passageLua)
	reviseScript  = newScript(reviseLua)
)

type script struct{ source, digest string }

func newScript(source string) *script {
	return &script{source, redis.NewScript(source).Hash()}
}

// call is a script with what it is called with.
type call struct {
	script *script
	keys   []string
	args   []any
}

// run makes the calls in one round trip, in order, and returns their answers. A server
// that does not know a script, because it was restarted or has failed over, is sent the
// scripts and those calls again: the scripts are made to be repeated. On an error any
// part of the calls may have been done.
func (q *Queues) run(ctx context.Context, calls []call) ([]reply, error) {
	replies := make([]reply, len(calls))
	todo := make([]int, len(calls))
	for i := range todo {
		todo[i] = i
	}
	for attempt := 0; len(todo) > 0; attempt++ {
		pipe := q.rdb.Pipeline()
		for _, i := range todo {
			pipe.EvalSha(ctx, calls[i].script.digest, calls[i].keys, calls[i].args...)
		}
		cmds, err := pipe.Exec(ctx)
		if len(cmds) != len(todo) {
			return nil, q.failed(errors.Join(err, errors.New("the pipeline was not sent")))
		}
		var again []int
		for n, i := range todo {
			value, err := cmds[n].(*redis.Cmd).Result()
			switch {
			case err == nil:
				replies[i] = reply{value}
			case attempt == 0 && redis.HasErrorPrefix(err, "NOSCRIPT"):
				again = append(again, i)
			default:
				return nil, q.failed(err)
			}
		}
		if todo = again; len(todo) == 0 {
			break
		}
		load := map[*script]bool{}
		for _, i := range todo {
			load[calls[i].script] = true
		}
		for s := range load {
			if err := q.rdb.ScriptLoad(ctx, s.source).Err(); err != nil {
				return nil, q.failed(fmt.Errorf("load a script: %w", err))
			}
		}
	}
	return replies, nil
}

// failed counts an error of Redis or of the way there.
func (q *Queues) failed(err error) error {
	q.failures.Add(1)
	for i, word := range refusals {
		if redis.HasErrorPrefix(err, word) {
			q.refused[i].Add(1)
		}
	}
	return err
}

// reply is the answer of a script: an integer, a text, or an array of both.
type reply struct{ value any }

// code is the answer itself, or its first element.
func (r reply) code() (int64, error) {
	v := r.value
	if list, ok := v.([]any); ok && len(list) > 0 {
		v = list[0]
	}
	if n, ok := v.(int64); ok {
		return n, nil
	}
	return 0, errReply
}

// texts returns the n elements after the code.
func (r reply) texts(n int) ([]string, error) {
	list, ok := r.value.([]any)
	if !ok || len(list) != n+1 {
		return nil, errReply
	}
	out := make([]string, n)
	for i := range out {
		if out[i], ok = list[i+1].(string); !ok {
			return nil, errReply
		}
	}
	return out, nil
}

// errReply means that a script and its caller disagree.
var errReply = errors.New("the answer of the script has another form")
