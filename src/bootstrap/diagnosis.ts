/**
 * Why a join does not go on: every cause with the sentence that says it and the one that cures it.
 *
 * @module
 */

/** What a cause means to a person. */
export interface Cause {
  /** One sentence: what happened. */
  readonly what: string;
  /** One sentence: what would cure it. */
  readonly cure: string;
  /** Whether only a person can change it: the node then tries again at the slow rate. */
  readonly needsPerson: boolean;
}

const self = (what: string, cure: string): Cause => ({ what, cure, needsPerson: false });
const person = (what: string, cure: string): Cause => ({ what, cure, needsPerson: true });

/** The causes by code. Codes are stable: they are metric labels and exit classes. */
export const CAUSES = {
  "no-candidates": self(
    "No source of discovery named any node of the network",
    "Check that a member runs and is reachable; name one with: mycelium bootstrap force-endpoint <address>",
  ),
  "unreachable": self(
    "The address did not answer",
    "Check that the node there runs and that UDP and TCP port 4871 are open between the two machines",
  ),
  "timeout": self(
    "The other node did not answer in time",
    "Check the link between the two machines; it is tried again by itself",
  ),
  "address-refused": self(
    "The address is private and neither on a local link nor routed",
    "Add a route to it, or name it in the configuration under discovery.addresses",
  ),
  "wrong-identity": self(
    "Another node answered at the address than the one that was expected",
    "A machine may have been re-installed; ask an operator for its present address or a new invite",
  ),
  "foreign-network": self(
    "The node at the address belongs to another network",
    "Check that the invite is of the network that this machine should join",
  ),
  "not-a-member": self("The other node does not count this one as a member yet", "It is tried again by itself"),
  "not-issuer": self("The node that answered may not admit members", "It named the ones that may; they are tried next"),
  "bad-answer": self(
    "The other node's answer could not be read",
    "Compare versions with: mycelium version; upgrade the older node",
  ),
  "version-unsupported": person("The two nodes speak no common version of the protocol", "Upgrade the older node"),
  "proof-invalid": self(
    "A proof of identity was not valid",
    "If it stays: check that nothing between the nodes changes traffic, then report it",
  ),
  "replayed": self("The challenge was used before or has run out", "It is tried again by itself with a new challenge"),
  "invite-expired": person("The invite has run out", "Make a new one on a member with: mycelium invite create"),
  "invite-used-up": person(
    "The invite was used as often as it may be",
    "Make a new one on a member with: mycelium invite create",
  ),
  "invite-revoked": person("The invite was revoked", "Ask an operator of the network for a new one"),
  "invite-unknown": person(
    "The invite was not issued by this network",
    "Check that it was copied whole and is of this network",
  ),
  "role-refused": person(
    "The invite does not allow the role",
    "Ask for an invite with this role: mycelium invite create --role <role>",
  ),
  "capability-implausible": person(
    "The machine's advertised capabilities were not believed",
    "Compare: mycelium doctor; a busy machine may have measured wrongly: mycelium bootstrap retry",
  ),
  "approval-pending": self("An operator has to approve this machine", "On a member: mycelium node approve <node>"),
  "approval-denied": person("An operator refused this machine", "Talk to the operator, then: mycelium bootstrap retry"),
  "revoked": person(
    "This machine was removed from the network",
    "To come back: mycelium bootstrap reset, then join with a new invite",
  ),
  "unknown-member": person(
    "The network does not know this machine any more",
    "mycelium bootstrap reset, then join with a new invite",
  ),
  "clock-skew": person(
    "The clocks of the two machines differ by more than five minutes",
    "Set this machine's clock, best by NTP",
  ),
  "expired": self("The membership credential has run out", "It is renewed by itself as soon as an issuer is reachable"),
  "handoff-incomplete": self(
    "What the network handed over could not be verified",
    "It is tried again by itself; if it stays: mycelium doctor on the registrar",
  ),
  "not-seen": self(
    "No other member reported to see this node",
    "Check that members can reach this machine's addresses; it is tried again by itself",
  ),
  "overloaded": self("The other node is too busy", "It is tried again by itself"),
  "full": person("The network is full", "Remove machines that are gone with: mycelium node remove"),
  "budget-exhausted": self("The stage took longer than it may", "It starts again from discovery by itself"),
  "isolated": self(
    "No other member has been reachable for a while",
    "Check cables, Wi-Fi and firewalls of this machine; it keeps trying by itself",
  ),
  "genesis-missing": person(
    "The stored identity of the network is damaged",
    "Restore the state directory from a backup, or: mycelium bootstrap reset",
  ),
  "internal": self("An unexpected failure", "See the log of the node; please report it"),
} as const satisfies Record<string, Cause>;

/** A stable code of a failure. */
export type CauseCode = keyof typeof CAUSES;

/** The code itself where it is known, else `internal`. */
export function causeCode(code: string): CauseCode {
  return Object.hasOwn(CAUSES, code) ? code as CauseCode : FALLBACKS.get(code) ?? "internal";
}

const FALLBACKS: ReadonlyMap<string, CauseCode> = new Map([
  ["cancelled", "timeout"],
  ["bad-frame", "bad-answer"],
  ["unknown-method", "version-unsupported"],
  ["unknown-issuer", "not-a-member"],
  ["tampered", "proof-invalid"],
  ["wrong-subject", "proof-invalid"],
  ["malformed", "bad-answer"],
  ["bad-request", "bad-answer"],
  ["not-yet-valid", "clock-skew"],
]);
