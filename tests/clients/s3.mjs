// Runs s3rver with one bucket on loopback: s3.mjs FOLDER PORT BUCKET. See tests/api/s3.py.
import crypto from "node:crypto";
import S3rver from "s3rver";

// It encrypts the token of a list that goes on with DES, which OpenSSL 3 has no more; the service
// does not use the token.
crypto.createCipheriv = () => ({ update: (text) => Buffer.from(text), final: () => Buffer.alloc(0) });

const [directory, port, name] = process.argv.slice(2);
await new S3rver({
  address: "127.0.0.1", port: Number(port), directory, silent: true, vhostBuckets: false,
  configureBuckets: [{ name, configs: [] }],
}).run();
