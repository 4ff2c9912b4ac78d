// Preloaded before kinesis-local, which listens on all interfaces and has no setting for it: keeps
// every server of the process on 127.0.0.1, at a free port. The port that it asks for is only a
// name: who asks for KINESIS_MOCK_PLAIN_PORT has its real port written to file descriptor READY_FD.
"use strict";

const fs = require("node:fs");
const net = require("node:net");

const listen = net.Server.prototype.listen;

net.Server.prototype.listen = function (asked, ...rest) {
  if (typeof asked !== "number") {
    throw new Error("loopback.js knows listen(port, ...) only, not " + JSON.stringify(asked));
  }
  if (asked === Number(process.env.KINESIS_MOCK_PLAIN_PORT)) {
    this.once("listening", () => {
      fs.writeSync(Number(process.env.READY_FD), this.address().port + "\n");
    });
  }
  const listening = rest.find((argument) => typeof argument === "function");
  return listen.call(this, { port: 0, host: "127.0.0.1" }, listening);
};
