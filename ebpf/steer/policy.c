//go:build ignore

// The policy: which worker's socket a new connection, or a datagram, goes to.
//
//  1. The worker of the CPU that received it, if that one is up and not loaded above the bound.
//  2. Otherwise the less loaded of two different workers, chosen at random among those that are up.
//  3. If there is none, whatever the kernel's hash says.
//
// The program must load with CAP_BPF alone, for which the verifier follows every path, dead ones too. So there are no
// loops, no pointers that may be NULL on some path, and no offsets into a value that are not constant; what one kernel
// lacks is compiled out for it, not branched around.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MAX_WORKERS 4096 // the real sizes are set before loading

enum state { NONE, UP, DRAINING, DEAD, HUNG };

// Everything is laid out so that a choice touches few cache lines: between two connections they are evicted.

// rule is what the master decides, once for each CPU, so that it reads one line that is its own.
struct rule {
	__u32 local;    // the number of the worker that is on it or near it, and one; 0 if there is none
	__u32 bound;    // the local worker is passed over if its load has reached it; 0: always
	__u32 eligible; // the length of the list of workers that are up
	__u32 pad[13];
};

// worker is what the master says of a worker, which cannot write it, and how many were chosen for it.
struct worker {
	__u32 state;
	__u32 slot;   // where the worker reports
	__u32 lost;   // how many of those that were chosen will never arrive; corrected now and then
	__u32 chosen; // written here only
	__u32 pad[12];
};

// report is what a worker says of itself: a line that it maps, and stores into without a system call. All that it can do by
// lying is to get more connections than it should, or fewer.
struct report {
	__u64 beat;
	__u32 open;     // connections
	__u32 accepted; // all that it ever has
	__u32 pad[12];
};

// count is what is counted of each worker and, since each CPU has its own counters, by CPU: LOCAL and BALANCED are what it
// got, the others what its CPUs received and it did not get, by its state. UP: because of its load. For the kernel's hash
// there is one worker more: LOCAL is what it chose a socket for, BALANCED what of that came from a closed socket.
enum count { LOCAL = 6, BALANCED = 7, COUNTS = 8 };

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32); // CPU
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__type(value, struct worker);
} workers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__type(value, __u32); // a worker's number
} eligible SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32); // slot
	__type(value, struct report);
} reports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32); // worker * COUNTS + enum count
	__type(value, __u64);
} counts SEC(".maps");

volatile const __u32 nworkers = 0;

// The functions are not inlined: each has a stack of its own then, and no pointer need be spilled, whose place older
// verifiers let nobody use for anything else.

// Each counter is an element of its own: the verifier allows no variable offset into a value.
static __noinline void count(__u32 id, __u32 what)
{
	__u32 key = id * COUNTS + what;
	__u64 *n = bpf_map_lookup_elem(&counts, &key);
	if (n)
		++*n;
}

// UNFIT is added to the state of a worker that is not up. Loads are below it.
#define UNFIT (1u << 31)

// load returns how much a worker has to do: its open connections, and those that were chosen for it and that it has not
// accepted yet.
static __noinline __u32 load(__u32 id)
{
	struct worker *w = bpf_map_lookup_elem(&workers, &id);
	if (!w)
		return UNFIT + NONE;
	__u32 state = w->state, slot = w->slot, queued = w->chosen - w->lost;
	if (state != UP)
		return UNFIT + (state & 7);
	struct report *r = bpf_map_lookup_elem(&reports, &slot);
	if (!r)
		return UNFIT + NONE;
	__u32 l = r->open;
	queued -= r->accepted;
	if ((__s32)queued > 0)
		l += queued;
	return l & (UNFIT - 1);
}

// choose sends what md is about to a worker, and reports whether that worked: its socket may be closed.
static __noinline int choose(struct sk_reuseport_md *md, __u32 id)
{
	if (bpf_sk_select_reuseport(md, &sockets, &id, 0))
		return 0;
	struct worker *w = bpf_map_lookup_elem(&workers, &id);
	if (w)
		__sync_fetch_and_add(&w->chosen, 1);
	return 1;
}

static __always_inline int steer(struct sk_reuseport_md *md, int migrating)
{
	__u32 cpu = bpf_get_smp_processor_id();
	struct rule *rule = bpf_map_lookup_elem(&rules, &cpu);
	if (!rule)
		return SK_PASS;
	__u32 local = rule->local, bound = rule->bound, many = rule->eligible;
	if (local && bound && !migrating) { // a socket is closed on any CPU
		__u32 id = local - 1, why = UP;
		__u32 l = load(id);
		if (l & UNFIT) {
			why = l - UNFIT;
		} else if (l < bound) {
			if (choose(md, id)) {
				count(id, LOCAL);
				return SK_PASS;
			}
			why = DEAD; // its socket is closed
		}
		count(id, why);
	}
	if (many) {
		__u32 random = bpf_get_prandom_u32();
		__u32 ka = random % many, kb = ka;
		if (many > 1)
			kb = (ka + 1 + (random >> 16) % (many - 1)) % many;
		__u32 *pa = bpf_map_lookup_elem(&eligible, &ka);
		if (pa) {
			__u32 a = *pa;
			__u32 *pb = bpf_map_lookup_elem(&eligible, &kb);
			if (pb) {
				__u32 b = *pb;
				__u32 id = load(b) < load(a) ? b : a;
				if (choose(md, id)) {
					count(id, BALANCED);
					return SK_PASS;
				}
			}
		}
	}
	count(nworkers, LOCAL);
	if (migrating)
		count(nworkers, BALANCED);
	return SK_PASS;
}

#ifdef MIGRATE
SEC("sk_reuseport/migrate")
int choose_worker(struct sk_reuseport_md *md)
{
	return steer(md, md->migrating_sk != 0);
}
#else
SEC("sk_reuseport")
int choose_worker(struct sk_reuseport_md *md)
{
	return steer(md, 0);
}
#endif

char _license[] SEC("license") = "Apache-2.0";
