"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const [filter, order, select, count, shown, previous, next, frames] =
  ["filter", "order", "query", "count", "shown", "previous", "next", "frames"].map((id) => document.getElementById(id));
const tracklets = data.tracklets.map(([name, pid, camid, length, strip, held]) =>
  ({ name, pid, camid, length, held, strip: `${encodeURIComponent(data.folder)}/${strip}` }));
const place = (tracklet) => `person ${tracklet.pid}, camera ${tracklet.camid}`;
const percent = (value) => (value === null ? "no match in the gallery" : `AP ${(100 * value).toFixed(1)} %`);

// Names from the data set are inserted as text nodes, never as HTML.
function make(tag, className, ...content) {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...content);
  return node;
}

function thumbnail(number, label) {
  const tracklet = tracklets[number];
  const image = make("img", "thumb");
  image.loading = "lazy";
  image.alt = `${label} ${tracklet.name}`;
  image.src = tracklet.strip;
  image.dataset.tracklet = number;
  const middle = Math.floor(tracklet.held / 2) / Math.max(1, tracklet.held - 1);
  image.style.objectPosition = `${100 * middle}% 0`;
  return image;
}

function showFrames(number) {
  const tracklet = tracklets[number];
  const [caption, image] = frames.children;
  caption.textContent = `${tracklet.name}: ${place(tracklet)}, ${tracklet.held} of ${tracklet.length} frames`;
  image.src = tracklet.strip;
  image.alt = `${tracklet.held} frames of ${tracklet.name}`;
  frames.hidden = false;
}

function card([number, distance, kind, answer], rank) {
  const tracklet = tracklets[number];
  const label = make("span", "kind", rank === null ? kind : `${rank} · ${kind}`);
  const name = make("span", "name", tracklet.name);
  name.title = tracklet.name;
  const away = make("span", "", distance.toFixed(3));
  const said = answer === null ? [] : [make("span", "answer", `“${answer}”`)];
  const item = make("li", `place ${kind}`, thumbnail(number, kind), label, make("br", ""), away, ...said, name);
  item.tabIndex = 0;
  item.setAttribute("aria-label", `${label.textContent}, distance ${away.textContent}, ${answer === null ? "" : `answer ${answer}, `}${tracklet.name}, ${place(tracklet)}`);
  return item;
}

function showQuery(index) {
  const query = data.queries[index];
  const tracklet = tracklets[query.tracklet];
  const face = thumbnail(query.tracklet, "query");
  face.tabIndex = 0;
  const facts = [place(tracklet), `${tracklet.length} frames`, percent(query.ap)];
  if (query.first) facts.push(`first match at rank ${query.first}`);
  const heading = make("h3", "", tracklet.name);
  const list = make("ol", "places");
  let rank = 0;
  for (const entry of query.places) list.append(card(entry, entry[2] === "junk" ? null : ++rank));
  shown.replaceChildren(make("div", "current", face, make("div", "", heading, make("p", "", facts.join(" · ")))), list);
  if (query.attention) {
    const picture = make("img", "attention");
    picture.src = `${encodeURIComponent(data.folder)}/${query.attention}`;
    picture.alt = `Attention on the frames of ${tracklet.name}`;
    shown.append(make("h3", "", "Attention over frames"), picture);
  }
  select.value = index;
  previous.disabled = select.selectedIndex <= 0;
  next.disabled = select.selectedIndex < 0 || select.selectedIndex === select.length - 1;
}

function choose(index) {
  showQuery(index);
  history.replaceState(null, "", `#q=${index}`);
}

function fill() {
  const plain = (text) => text.normalize().toLowerCase(); // ignore the Unicode normal form of accents
  const words = plain(filter.value);
  const hardness = (query) => (query.ap === null ? 2 : query.ap);
  const rows = data.queries.map((query, index) => ({ query, index, of: tracklets[query.tracklet] }))
    .filter(({ of }) => plain(of.name).includes(words) || String(of.pid) === words);
  if (order.value === "hardest") rows.sort((a, b) => hardness(a.query) - hardness(b.query));
  const chosen = select.value;
  select.replaceChildren(...rows.map(({ query, index, of }) => new Option(`${of.name} · ${percent(query.ap)}`, index)));
  count.textContent = `${rows.length} of ${data.queries.length}`;
  const kept = rows.find(({ index }) => String(index) === chosen) ?? rows[0];
  if (kept) showQuery(kept.index);
}

function step(by) {
  select.selectedIndex += by;
  choose(Number(select.value));
}

function follow() {
  const match = /^#q=(\d+)$/.exec(location.hash);
  if (!match || !(match[1] in data.queries)) return false;
  if (![...select.options].some((option) => option.value === match[1])) {
    filter.value = "";
    fill();
  }
  showQuery(Number(match[1]));
  return true;
}

filter.addEventListener("input", fill);
order.addEventListener("change", fill);
select.addEventListener("change", () => choose(Number(select.value)));
previous.addEventListener("click", () => step(-1));
next.addEventListener("click", () => step(1));
addEventListener("hashchange", () => {
  if (follow()) document.getElementById("queries").scrollIntoView();
});

// Show the frames of the tracklet under the pointer or with the focus.
for (const event of ["mouseover", "focusin"]) {
  document.addEventListener(event, ({ target }) => {
    const image = target.closest(".place, .mini, .query, .current")?.querySelector("[data-tracklet]");
    if (image) showFrames(Number(image.dataset.tracklet));
    else frames.hidden = true;
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") frames.hidden = true;
  const by = { ArrowLeft: "previousElementSibling", ArrowRight: "nextElementSibling" }[event.key];
  const neighbour = by && document.activeElement.closest(".place")?.[by];
  if (neighbour) {
    neighbour.focus();
    event.preventDefault();
  }
});

fill();
follow();
