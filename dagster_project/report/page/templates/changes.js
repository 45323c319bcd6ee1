// What one training changed against another, over seeds and judges, case by case; training cases are left out.
const SOURCE = "source";

function alone(way) { return data.alone.includes(way); }

// Pairs of runs that differ in the recipe alone, with who scored both.
function pairsOfRuns({ model, beta, first, second, scoring }) {
  const wanted = (way) => (scoring === "each" ? alone(way) : way === scoring);
  const found = [];
  for (const after of data.runs) {
    if (after.recipe !== second || after.beta !== beta || (model !== "all" && after.model !== model)) continue;
    const before = data.runs.find((run) => run.model === after.model && (first === SOURCE ? run.recipe === null
      : run.recipe === first && run.beta === beta && run.pairs_judge === after.pairs_judge && run.seed === after.seed));
    if (!before) continue;
    for (const judge of Object.keys(scoresOfRun(after, after.seed))) {
      const way = `${after.pairs_judge === judge ? "match" : "cross"}/${judge}`;
      if (wanted(way)) found.push({ before, after, judge, way });
    }
  }
  return found;
}

function scoresOfRun(run, seed) {
  const seeds = Object.hasOwn(data.scores, run.agent) ? data.scores[run.agent] : {};
  return seeds[seed] || {};
}

function caseMap(run, seed, judge, metric) {
  const [cases, scores] = (scoresOfRun(run, seed)[judge] || {})[metric] || [[], []];
  return new Map(cases.map((index, place) => [index, scores[place]]));
}

// A row for every case: means over the pairs of runs that were scored on it, and how far their changes lie apart.
function casesOf(asked) {
  const rows = new Map();
  for (const pair of pairsOfRuns(asked)) {
    const before = caseMap(pair.before, pair.after.seed, pair.judge, asked.metric);
    for (const [index, score] of caseMap(pair.after, pair.after.seed, pair.judge, asked.metric)) {
      if (!before.has(index)) continue;
      const row = rows.get(index) || { case_idx: index, cells: [] };
      row.cells.push({ ...pair, first: before.get(index), second: score });
      rows.set(index, row);
    }
  }
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  return [...rows.values()].map((row) => {
    const changes = row.cells.map((cell) => cell.second - cell.first);
    return { ...row, before: mean(row.cells.map((cell) => cell.first)), after: mean(row.cells.map((cell) => cell.second)),
      change: mean(changes), least: Math.min(...changes), greatest: Math.max(...changes), runs: changes.length };
  }).sort((a, b) => Math.abs(b.change) - Math.abs(a.change) || a.case_idx - b.case_idx);
}

// The stated rule: the largest fall, the middle of all changes, and the largest rise; of equal ones, the lowest case index.
function examples(rows) {
  const sorted = [...rows].sort((a, b) => a.change - b.change || a.case_idx - b.case_idx);
  const best = sorted.filter((row) => row.change === sorted[sorted.length - 1].change)[0];
  return [["largest fall", sorted[0]], ["middle", sorted[Math.floor((sorted.length - 1) / 2)]], ["largest rise", best]]
    .filter(([, row], place, all) => row && all.findIndex(([, other]) => other === row) === place);
}

// Of a case, the pair of runs whose own change is farthest in the direction of the case's; of equal ones, the first.
function exampleCell(row) {
  const sign = row.change < 0 ? -1 : 1;
  return row.cells.reduce((best, cell) => (sign * (cell.second - cell.first) > sign * (best.second - best.first) ? cell : best));
}

function exampleLinks(row) {
  const cell = exampleCell(row), sample = 0;
  const one = (run, words) => link(visible(words), "read", runName(run), row.case_idx, sample);
  return [one(cell.before, "before"), " · ", one(cell.after, "after"), " · ", link("both, side by side", "compare", runName(cell.after), row.case_idx),
    el("span", { class: "soft" }, visible(` ${cell.judge} ${number(cell.first)} → ${number(cell.second)}; ${runTitle(cell.after)}`))];
}

function examplesList(rows) {
  return el("ul", { class: "examples" }, examples(rows).map(([words, row]) => el("li", {}, `${words}: case ${row.case_idx}, ${number(row.before)} → ${number(row.after)}: `, exampleLinks(row))));
}

const CHANGED = ["model", "beta", "first", "second", "metric", "scoring"];

function changedView(...parts) {
  const asked = Object.fromEntries(CHANGED.map((name, place) => [name, parts[place]]));
  asked.metric ||= "safe";
  asked.scoring ||= "each";
  const matches = (row, names) => names.every((name) => row[name] === asked[name]);
  const known = data.changes.filter((row) => matches(row, ["model", "beta", "first", "second"]));
  if (!known.length) return missing("comparison", parts.slice(0, 4).join(", "));
  const choose = (name, values, words = (value) => value) => el("label", {}, { model: "source model", beta: "β", first: "before", second: "after", scoring: "scored by" }[name] || name,
    el("select", { onchange: (event) => { location.hash = route("changed", ...CHANGED.map((other) => (other === name ? event.target.value : asked[other]))); } },
      values.map((value) => el("option", { value, selected: value === asked[name] }, visible(words(value))))));
  const having = (name, names) => [...new Set(data.changes.filter((row) => matches(row, names)).map((row) => row[name]))];
  const metrics = [...new Set(data.runs.flatMap((run) => Object.values(scoresOfRun(run, run.seed)).flatMap((found) => Object.keys(found))))];
  const tools = el("div", { class: "tools" }, choose("model", having("model", ["first", "second", "beta"])), choose("beta", having("beta", ["first", "second", "model"])),
    choose("first", having("first", ["second", "model", "beta"])), choose("second", having("second", ["first", "model", "beta"])),
    choose("metric", metrics, (value) => metricName(value)), choose("scoring", ["each", ...data.alone], (value) => (value === "each" ? "every judge" : data.scorings[value])));
  const rows = casesOf(asked);
  const who = asked.model === "all" ? "all source models" : asked.model;
  const several = data.alone.filter((way) => known.some((row) => row.scoring === way)).length > 1;
  const means = known.filter((row) => (alone(row.scoring) || (several && row.judge === null)) && (asked.scoring === "each" || row.scoring === asked.scoring))
    .sort((a, b) => (a.judge === null) - (b.judge === null) || (b.metric === asked.metric) - (a.metric === asked.metric));
  const summary = means.map((row) => el("tr", {}, el("th", { scope: "row", class: "name" }, visible(row.panel)), el("td", {}, metricName(row.metric)), el("td", { class: "number" }, number(row.before)), el("td", { class: "number" }, number(row.after)),
    el("td", { class: "number" }, estimate(row.change, row.low, row.high)), el("td", { class: "number" }, row.pairs), el("td", { class: "number" }, row.cases)));
  const cases = rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.case_idx), el("td", {}, link(visible(instruction(row.case_idx).slice(0, 160)), "compare", runName(exampleCell(row).after), row.case_idx)),
    el("td", { class: "number" }, `${number(row.before)} → ${number(row.after)}`), el("td", { class: "number" }, number(row.change, true)), el("td", { class: "number" }, `${number(row.least, true)} … ${number(row.greatest, true)}`), el("td", { class: "number" }, row.runs)));
  const changed = (sign) => rows.filter((row) => sign * row.change >= 1).length;
  const name = ["changed", who, asked.beta, asked.first, asked.second, asked.metric].join("-").replace(/[^\p{L}\p{N}.-]+/gu, "-");
  const records = rows.map((row) => ({ case: row.case_idx, metric: asked.metric, before: row.before, after: row.after, change: row.change, least: row.least, greatest: row.greatest, runs: row.runs, instruction: instruction(row.case_idx) }));
  return [crumbs(), el("h2", {}, visible(`${asked.first} against ${asked.second}: ${who}, β ${asked.beta}`)), tools,
    el("p", {}, "Agents are paired by source model, β, pairs' judge and seed, and compared on the held-out cases that both were scored on: training cases are left out. Intervals: 95%, from the bootstrap of seeds and cases; the source models are taken as they are."),
    table(["scored by", "metric", "before", "after", "change [95%]", "pairs of agents", "cases"], summary, { caption: "Means over seeds.", csv: [`${name}-means`, means] }),
    el("h3", {}, visible(`Case by case: ${metricName(asked.metric)}`)),
    rows.length ? el("p", {}, `Of ${rows.length} cases, ${changed(-1)} fell and ${changed(1)} rose by a point or more, averaged over ${asked.scoring === "each" ? "seeds and judges" : "seeds"}.`) : el("p", {}, "No judge scored both on the same held-out case."),
    rows.length ? el("p", {}, "Examples, by rule: the case with the largest fall, the middle one, and the one with the largest rise; of each, the pair of runs that moved furthest that way.") : null,
    rows.length ? examplesList(rows) : null,
    rows.length ? table(["case", "instruction", "before → after", "change", "least … greatest of the runs", "runs"], cases, { caption: "A case's mean over its runs (an agent under a seed, by a judge), biggest changes first.", csv: [name, records] }) : null];
}

function instruction(index) { return Object.hasOwn(data.cases, index) ? data.cases[index].user_instruction : ""; }

function metricName(metric) { return { safe: "safety", help: "helpfulness", help_safe: "helpfulness that minds safety" }[metric] || visible(metric); }

// An estimate with its interval; a third digit, and more, where two would hide on which side of 0 a bound is.
function estimate(value, low, high, threshold = 0) {
  const bounds = [low, high].filter((bound) => bound !== null && bound !== undefined && Number.isFinite(bound));
  let digits = bounds.some((bound) => bound !== threshold && Math.abs(bound - threshold) < 0.03) ? 3 : 2;
  while (digits < 5 && bounds.some((bound) => bound !== threshold && Number(bound.toFixed(digits)) === Number(threshold.toFixed(digits)))) digits += 1;
  return number(value, true, digits) + (bounds.length === 2 ? ` [${number(low, true, digits)}, ${number(high, true, digits)}]` : "");
}
