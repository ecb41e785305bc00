// The shared worker: one for all tabs of a browser.

import { serve } from "./lines.js";

self.onconnect = ({ ports: [port] }) => serve(port);
