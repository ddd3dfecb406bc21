/**
 * What any program of this kind costs on this runtime, compiled by the same tool: an HTTP server, and with a
 * certificate and key a QUIC listener beside it. The divisor of the benches of start and footprint.
 *
 * usage: skeleton PORT [CERTIFICATE KEY]     (files in PEM)
 *
 * @module
 */

const [port = "0", certificate, key] = Deno.args;

if (certificate !== undefined && key !== undefined) {
  const endpoint = new Deno.QuicEndpoint({ hostname: "127.0.0.1", port: 0 });
  const listener = endpoint.listen({
    cert: Deno.readTextFileSync(certificate),
    key: Deno.readTextFileSync(key),
    alpnProtocols: ["skeleton"],
  });
  (async () => {
    for await (const _ of listener) continue;
  })();
}
Deno.serve(
  { hostname: "127.0.0.1", port: Number(port), onListen: () => console.log("ready") },
  () => new Response("hello\n"),
);
