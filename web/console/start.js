// Leads from / to the page of a feed.

import { pageOf, readPlace } from "./place.js";

const { feeds, types } = readPlace();
location.replace(pageOf(feeds, types));
