/*
 * The rounds of src/consensus/instance.ts: agreement and validity with one Byzantine of four voters.
 *
 * Names are the code's: round, freeze (votes and certificate), carried, tally, precommit, lock, decide. What stands for what:
 *
 * - Voters 0 to 2 are honest. Voter 3 lies and needs no process: every certificate may count its signature, which is all that it can give.
 *   A quorum is three of four, hence two honest signatures and the liar's make any certificate.
 * - The liar leads every round. What an honest leader asks for is among what it may ask for: any fresh set, a different one of
 *   each voter, or any set with a freeze certificate of an earlier round.
 * - A value is a set of commitments, fresh in round value / 2. Two per round are enough: a third one in one round has at most one honest
 *   signature, which is as good as none. A set fixes its openings and its outcome, since hashes do not collide.
 * - Time and network: a voter may enter the next round, or act on what is certified, at any moment or never. So every
 *   timeout, loss, delay, repetition and reordering, and every opening that is withheld or recovered, is among the runs.
 *
 * Agreement: no two sets have decision certificates. Validity: whichever commitments of at least three voters are in
 * the set, what the honest voters voted is its outcome (tally).
 *
 *   spin -a commit_reveal.pml && gcc -O2 -DSAFETY -DNOFAIR -o pan pan.c && ./pan -m20000
 *
 * With -DBROKEN_LOCK a lock yields to any certificate, with -DBROKEN_QUORUM two of four are enough, with -DTWO_LIARS voter 2
 * signs everything, too: the checker then has to find two decisions, which shows that it can.
 */

#define HONEST 3
#define ROUNDS 3
#define VALUES 6
#define NONE 7

/* Bitmaps of the honest voters that have signed, by round and value. */
byte freezes[18];
byte precommits[18];

byte round[HONEST];
byte lockValue[HONEST];
byte lockRound[HONEST];
byte decided = NONE;

#define AT(r, v) ((r) * VALUES + (v))
#define BIT(me) (1 << (me))

#ifdef BROKEN_QUORUM
#define CERTIFIED(bits) ((bits) != 0)
#else
#ifdef TWO_LIARS
#define CERTIFIED(bits) (((bits) & 3) != 0)
#else
#define CERTIFIED(bits) ((bits) == 3 || (bits) == 5 || (bits) == 6 || (bits) == 7)
#endif
#endif

/* Signed nothing in this round yet. */
#define FREE(signed, r, me) (((signed[AT(r, 0)] | signed[AT(r, 1)] | signed[AT(r, 2)] | signed[AT(r, 3)] | \
	signed[AT(r, 4)] | signed[AT(r, 5)]) & BIT(me)) == 0)

#ifdef BROKEN_LOCK
#define LOCK_ALLOWS(me, r, v) true
#else
/* A lock yields to a freeze certificate of its round or a later one, to nothing else. */
#define LOCK_ALLOWS(me, r, v) (lockValue[me] == NONE || lockValue[me] == (v) || (r) >= lockRound[me])
#endif

/* The outcome of a set of at least three commitments, whichever: honest voters vote 1, the liar 0. */
inline tally() {
	byte honest, lies;
	if
	:: honest = 3; lies = 0
	:: honest = 3; lies = 1
	:: honest = 2; lies = 1
	fi;
	assert(2 * honest > honest + lies);
	honest = 0; lies = 0
}

inline decide(v) {
	assert(decided == NONE || decided == v);
	decided = v
}

active proctype Voters() {
	byte me, r, v;
	atomic {
		lockValue[0] = NONE; lockValue[1] = NONE; lockValue[2] = NONE
	}
	do
	:: atomic {
		if
		:: me = 0
		:: me = 1
		:: me = 2
		fi;
		if
		/* enterRound */
		:: round[me] < ROUNDS - 1 -> round[me]++

		/* freeze, fresh: one of the sets of this round, without a lock. */
		:: FREE(freezes, round[me], me) && lockValue[me] == NONE ->
			if
			:: v = 2 * round[me]
			:: v = 2 * round[me] + 1
			fi;
			freezes[AT(round[me], v)] = freezes[AT(round[me], v)] | BIT(me)

		/* freeze, carried: a set with a freeze certificate of an earlier round r. */
		:: round[me] > 0 && FREE(freezes, round[me], me) ->
			if
			:: r = 0
			:: round[me] > 1 -> r = 1
			fi;
			select(v : 0 .. 5);
			if
			:: CERTIFIED(freezes[AT(r, v)]) && LOCK_ALLOWS(me, r, v) ->
				freezes[AT(round[me], v)] = freezes[AT(round[me], v)] | BIT(me)
			:: else
			fi

		/* frozen, opened, precommit: the set of this round is certified and open here. */
		:: FREE(precommits, round[me], me) ->
			select(v : 0 .. 5);
			if
			:: CERTIFIED(freezes[AT(round[me], v)]) ->
				tally();
				lockValue[me] = v; lockRound[me] = round[me];
				precommits[AT(round[me], v)] = precommits[AT(round[me], v)] | BIT(me);
				if
				:: CERTIFIED(precommits[AT(round[me], v)]) -> decide(v)
				:: else
				fi
			:: else
			fi
		:: else
		fi;
		me = 0; r = 0; v = 0 }
	od
}
