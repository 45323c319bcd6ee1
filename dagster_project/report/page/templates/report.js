// The page's behaviour, within one function with the other scripts. Texts from the data are only ever set as text, never as HTML.
  const data = JSON.parse(document.getElementById("data").textContent);
  const filters = document.getElementById("filters");
  const report = document.getElementById("report"), panel = document.getElementById("panel");
  const LONG = 20000; // characters of one text that are shown at once
  const runs = new Map(data.runs.map((run) => [runName(run), run]));
  const views = {};

  function runName(run) { return run.seed === null ? run.agent : `${run.agent}@${run.seed}`; }

  // Elements: el("p", {class: "soft"}, "text", child…). Strings become text nodes.
  function el(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined).map((child) => typeof child === "number" ? String(child) : child));
    return made;
  }
  const HIDDEN = /[^\P{C}\n\t]/gu; // control, format and unassigned characters, lone surrogates
  function visible(text) {
    return String(text).replace(HIDDEN, (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
  }
  function number(value, sign, digits = 2) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    const text = Math.abs(value).toFixed(digits), minus = value < 0 && Number(text) !== 0;
    return (minus ? "−" : sign ? "+" : "") + text;
  }
  const route = (...parts) => "#/" + parts.map(encodeURIComponent).join("/");
  const link = (text, ...parts) => el("a", { href: route(...parts) }, text);

  // ---- Charts
  function theme() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const ink = dark ? "#e6e9ed" : "#1b1f24", soft = dark ? "#a5afba" : "#57606a", line = dark ? "#333b45" : "#e3e7eb";
    const axis = { labelColor: soft, titleColor: ink, gridColor: line, domainColor: soft, tickColor: soft };
    return { background: "transparent", axis, legend: { labelColor: ink, titleColor: ink }, header: { labelColor: ink, titleColor: ink },
      view: { stroke: line }, title: { color: ink }, style: { "guide-label": { fontSize: 12 }, "guide-title": { fontSize: 12 } } };
  }
  async function draw(name) {
    const figure = document.getElementById(`chart-${name}`);
    if (!figure) return;
    const live = figure.querySelector(".live"), still = figure.querySelector(".static");
    live.hidden = false;
    // `ast`: expressions are interpreted, not compiled, so that the page can forbid code made from texts.
    const options = { renderer: "svg", actions: false, ast: true, config: theme() };
    const { view } = await vegaEmbed(live, structuredClone(data.charts[name]), options);
    views[name] = view;
    still.style.display = "none";
    view.addEventListener("click", (event, item) => {
      const { id, link: target } = (item && item.datum) || {};
      if (id) location.hash = route("point", id);
      else if (target) location.hash = target;
    });
    applyFilters(name);
  }
  function choice() {
    return filters ? Object.fromEntries(new FormData(filters)) : data.choice;
  }
  function applyFilters(name) {
    const view = views[name], chosen = choice();
    let changed = false;
    for (const [filter, value] of Object.entries(chosen)) {
      try { if (view.signal(filter) !== value) { view.signal(filter, value); changed = true; } } catch { /* not this chart's */ }
    }
    if (changed) view.runAsync();
  }
  function shownPoints() {
    const chosen = choice(), any = (name, point) => chosen[name] === "all" || point[name] === chosen[name];
    return data.points.filter((point) => (chosen.scoring === "each" ? point.alone : point.scoring === chosen.scoring) && point.seed === chosen.seed
      && any("model", point) && any("recipe", point) && any("beta", point));
  }
  function fillTable() {
    const body = document.querySelector("#points tbody");
    if (!body) return;
    const cell = (value, sign) => el("td", { class: "number" }, number(value, sign));
    const between = (point, axis) => el("td", { class: "number" }, estimate(point[axis], point[`${axis}_low`], point[`${axis}_high`]));
    const rows = shownPoints().map((point) => el("tr", {}, el("th", { scope: "row" }, visible(point.model)), el("td", {}, point.recipe), el("td", {}, point.beta),
      el("td", {}, point.seed), el("td", {}, visible(point.judge)), cell(point.safety), cell(point.helpfulness), between(point, "safety_delta"), between(point, "helpfulness_delta"),
      el("td", {}, el("a", { href: route("point", point.id), "aria-label": `open ${point.model}, ${point.recipe}, β ${point.beta}, scored by ${point.judge}` }, "open"))));
    body.replaceChildren(...(rows.length ? rows : [el("tr", {}, el("td", { colspan: 10 }, "No point is like this: judges score together only where both did."))]));
  }
  if (filters) filters.addEventListener("change", () => { Object.keys(views).forEach(applyFilters); fillTable(); });

  // ---- Transcripts: one file for every agent and seed, loaded when one of it is asked for
  const loaded = new Map(), waiting = new Map();
  window.frontierTranscripts = async (name, text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const records = JSON.parse(await new Response(stream).text());
    loaded.set(name, records);
    (waiting.get(name) || (() => {}))(records);
  };
  function transcripts(run) {
    const name = run.file.split("/").pop();
    if (loaded.has(name)) return Promise.resolve(loaded.get(name));
    return new Promise((resolve, reject) => {
      waiting.set(name, resolve);
      const script = el("script", { src: run.file });
      script.onerror = () => reject(new Error(`The file ${run.file} is not beside this page, so its transcripts cannot be shown here. Keep the page and the folder transcripts together; or: frontier transcript ${data.experiment} --agent … --case …`));
      document.head.append(script);
    });
  }

  // ---- Views
  function crumbs(...links) {
    return el("p", { class: "soft" }, el("a", { href: "#frontier" }, "← report"), ...links.flatMap((part) => [" / ", part]));
  }
  function runTitle(run) {
    return run.recipe === null ? `${run.model}, untrained` : `${run.model}, ${run.recipe}, β ${run.beta}, pairs by ${run.pairs_judge}, seed ${run.seed}`;
  }
  function scoresOf(run) {
    return run.scores.map((score) => `${score.judge} ${score.metric} ${number(score.mean)} (${score.n})`).join("; ");
  }
  function lineage(run) {
    const rows = run.artifacts.map((place) => data.artifacts[place]).map((made) => el("tr", {}, el("th", { scope: "row" }, visible(`${made.asset} ${made.partition}`)),
      el("td", {}, el("a", { href: `${data.ui}/runs/${made.run_id}`, target: "_blank", rel: "noopener" }, made.run_id.slice(0, 8))), el("td", {}, el("code", {}, made.sha256)),
      el("td", {}, made.code_version), el("td", {}, made.ended)));
    const head = ["artifact", "run", "sha256", "code version", "made (UTC)"].map((text) => el("th", { scope: "col" }, text));
    return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
  }
  function settings(run) {
    const stages = run.stages.map((stage, place) => el("li", {}, visible(`stage ${place + 1}: ${Object.entries(stage).map(([name, value]) => `${name} ${value === null ? "not recorded" : value}`).join(", ")}`)));
    const mixed = run.mixture.map((share) => el("li", {}, visible(`${share.weight} of ${share.agent}`)));
    if (mixed.length) return el("div", {}, el("p", {}, "Mixed of trained agents' adapters, not trained:"), el("ul", {}, mixed));
    return stages.length ? el("ol", {}, stages) : el("p", {}, run.recipe === null ? "A source model: it was not trained here." : "It was not trained here.");
  }
  function pointView(id) {
    const point = data.points.find((found) => found.id === id);
    if (!point) return missing("point", id);
    const mine = data.runs.filter((run) => run.model === point.model && (run.recipe === null || (run.recipe === point.recipe && run.beta === point.beta
      && (point.seed === "all" || String(run.seed) === point.seed) && (point.judging === "all" || point.judge === "average" || (run.pairs_judge === point.judge) === (point.judging === "match")))));
    const rows = mine.map((run) => el("tr", {}, el("th", { scope: "row" }, link(visible(runTitle(run)), "run", runName(run))), el("td", { class: "number" }, run.held_out), el("td", {}, visible(scoresOf(run)))));
    const source = data.sources.find((row) => row.model === point.model && row.scoring === point.scoring);
    const own = (row, axis) => el("td", { class: "number" }, row ? `${number(row[axis])}${row[`${axis}_low`] === undefined || row[`${axis}_low`] === null ? "" : ` [${number(row[`${axis}_low`])}, ${number(row[`${axis}_high`])}]`}` : "–");
    const delta = (axis) => el("td", { class: "number" }, estimate(point[`${axis}_delta`], point[`${axis}_delta_low`], point[`${axis}_delta_high`]));
    const axes = ["safety", "helpfulness"].map((axis) => el("tr", {}, el("th", { scope: "row" }, axis), own(point, axis), own(source, axis), delta(axis)));
    const bySteps = ["safe", "help"].map((metric) => link(`${metricName(metric)} case by case, against the source model`, "changed", point.model, point.beta, "source", point.recipe, metric, data.alone.includes(point.scoring) ? point.scoring : "each"));
    const title = `${point.model}, ${point.recipe}, β ${point.beta}${point.seed === "all" ? "" : `, seed ${point.seed}`}`;
    return [crumbs(), el("h2", {}, visible(title)),
      el("p", {}, `Scored by ${visible(point.panel)}; held-out cases only. The source model's score is over the held-out cases of every seed.`),
      table(["", "this agent [95%]", "source model [95%]", "difference [95%]"], axes, { csv: ["point", [point, ...(source ? [source] : [])]] }),
      el("p", {}, bySteps[0], " · ", bySteps[1]),
      table(["run", "transcripts of held-out cases", "mean scores (cases)"], rows, { caption: "Open a run for its transcripts.", csv: ["point-runs", mine.map((run) => ({ run: runTitle(run), held_out: run.held_out, scores: scoresOf(run) }))] }),
      ...mine.map((run) => el("details", {}, el("summary", {}, visible(`Lineage and settings of ${runTitle(run)}`)), settings(run), lineage(run)))];
  }
  const caseOf = (record) => data.cases[record.case_idx];
  function scoreText(record) {
    return record.verdicts.map((verdict) => `${verdict.judge} ${verdict.metric} ${verdict.score === null ? "none" : verdict.score}`).join(", ");
  }
  const everTested = new Set(Object.values(data.tested).flat());
  const heldOut = (run, record) => (run.seed === null ? everTested.has(record.case_idx) : (data.tested[run.seed] || []).includes(record.case_idx));
  const notHeldOut = (run) => (run.seed === null ? "never held out" : "training case");
  function selfWritten(record) { return record.final_self_observed || record.steps.some((step) => step.self_observed); }
  async function runView(name) {
    const run = runs.get(name);
    if (!run) return missing("run", name);
    const records = await transcripts(run);
    const texts = records.map((record) => JSON.stringify(record).toLowerCase());
    const trained = records.filter((record) => !heldOut(run, record)).length;
    const rows = records.map((record) => el("tr", {}, el("th", { scope: "row" }, `${record.case_idx}${record.sample ? `.${record.sample}` : ""}`, heldOut(run, record) ? null : [" ", el("span", { class: "badge" }, notHeldOut(run))]),
      el("td", {}, link(visible(record.user_input.slice(0, 160)), "read", name, record.case_idx, record.sample)), el("td", {}, visible(scoreText(record))),
      el("td", {}, `${record.stop_reason.replaceAll("_", " ")} `, selfWritten(record) ? el("span", { class: "badge" }, "invented results") : null),
      el("td", {}, link("compare", "compare", name, record.case_idx))));
    const count = el("p", { role: "status" }), search = el("input", { type: "search", oninput: () => select() });
    const everything = el("input", { type: "checkbox", onchange: () => select() });
    const select = () => {
      const words = search.value.toLowerCase(), there = records.length - (everything.checked ? 0 : trained);
      let left = 0;
      rows.forEach((row, place) => { row.hidden = !texts[place].includes(words) || !(everything.checked || heldOut(run, records[place])); left += row.hidden ? 0 : 1; });
      count.textContent = words ? `${left} of ${there} transcripts` : `${there} transcripts`;
    };
    select();
    const judges = (one) => one.scores.map((score) => score.judge); // of source models they are not listed: all judges scored them
    const meets = (other) => !judges(run).length || !judges(other).length || judges(run).some((judge) => judges(other).includes(judge));
    const others = data.runs.filter((other) => other !== run && meets(other) && other.model === run.model && (run.seed === null || other.seed === null || other.seed === run.seed));
    const against = el("select", { onchange: () => { if (against.value) location.hash = route("differences", name, against.value); } },
      el("option", { value: "" }, "choose"), others.map((other) => el("option", { value: runName(other) }, visible(runTitle(other)))));
    return [crumbs(), el("h2", {}, visible(runTitle(run))), el("div", { class: "tools" }, el("label", {}, "what changed, against", against), el("label", {}, "search these transcripts: case, actions, answers, verdicts", search), trained ? el("label", { class: "check" }, everything, ` show ${trained} transcripts of cases that were ${run.seed === null ? "never" : "not"} held out`) : null), count,
      el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ["case", "instruction", "scores", "end", ""].map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, rows))),
      el("details", {}, el("summary", {}, "Lineage and settings"), settings(run), lineage(run))];
  }
  function text(content, marked = false) {
    const all = visible(content);
    const place = el("div", { class: "text" });
    const show = (part) => place.replaceChildren(...(marked ? markInvented(part) : [part]));
    show(all.length > LONG ? all.slice(0, LONG) : all);
    if (all.length <= LONG) return place;
    const more = el("button", { type: "button", onclick: () => { show(all); more.remove(); } }, `show all ${all.length.toLocaleString()} characters`);
    return el("div", {}, place, more);
  }
  // What the agent wrote where a result would stand: from a line "Observation:" to its next thought, action or answer.
  function markInvented(content) {
    const parts = [];
    let invented = false, start = 0;
    for (const found of content.matchAll(/^[ \t]*(Observation|Thought|Action|Final Answer)\b/gm)) {
      const begins = found[1] === "Observation";
      if (begins === invented) continue;
      parts.push([invented, content.slice(start, found.index)]);
      start = found.index;
      invented = begins;
    }
    parts.push([invented, content.slice(start)]);
    return parts.map(([written, part]) => written ? el("mark", {}, part) : part);
  }
  const badge = (shown) => shown ? el("span", { class: "badge" }, "wrote its own result") : null;
  function stepsOf(record) {
    const steps = record.steps.map((step, place) => el("div", { class: "step" }, el("h4", {}, `Step ${place + 1} `, badge(step.self_observed)), text(step.log, step.self_observed),
      el("p", { class: "soft" }, `observation, by the ${step.observation_source}`), el("div", { class: "observation", tabindex: "0" }, text(step.observation))));
    const last = el("div", { class: "step" }, el("h4", {}, `End: ${record.stop_reason.replaceAll("_", " ")} `, badge(record.final_self_observed)), text(record.final_log, record.final_self_observed), record.error ? text(record.error) : null);
    return [...steps, last];
  }
  function verdictsOf(record) {
    const judges = [...new Set(record.verdicts.map((verdict) => verdict.judge))];
    return el("div", { class: "columns" }, judges.map((judge) => el("div", { class: "card" }, el("h4", {}, visible(judge)),
      record.verdicts.filter((verdict) => verdict.judge === judge).map((verdict) => el("details", {}, el("summary", {}, `${verdict.metric}${verdict.replicate ? ` (${verdict.replicate + 1})` : ""}: `, el("span", { class: "score" }, verdict.score === null ? "no score" : String(verdict.score)), ` ${visible(verdict.label)}`),
        verdict.summary ? text(verdict.summary) : null, text(verdict.thought || verdict.error || "The judge gave no reasons."))))));
  }
  function caseCard(record) {
    const found = caseOf(record), list = (title, items) => items && items.length ? [el("h4", {}, title), el("ul", {}, items.map((item) => el("li", {}, visible(item))))] : [];
    return el("div", {}, el("p", {}, el("strong", {}, visible(record.user_input))), found ? el("details", {}, el("summary", {}, `The case: ${visible(found.toolkits.join(", "))}`),
      ...list("Left open", [...found.underspecifications.task, ...found.underspecifications.safety]), ...list("Expected", found.expected_achievements), ...list("Risky outcomes", found.risky_outcomes), ...list("Risky actions", found.risky_actions)) : null);
  }
  async function readView(name, index, sample) {
    const run = runs.get(name);
    const record = run && (await transcripts(run)).find((found) => String(found.case_idx) === index && String(found.sample) === sample);
    if (!record) return missing("transcript", `${name}, case ${index}`);
    return [crumbs(link(visible(runTitle(run)), "run", name)), el("h2", {}, visible(`Case ${index}: ${runTitle(run)}`)), heldOut(run, record) ? null : el("p", {}, el("span", { class: "badge" }, notHeldOut(run))), caseCard(record),
      el("p", {}, link("compare this case across agents", "compare", name, index), el("span", { class: "soft" }, ` trajectory ${record.trajectory_id}; emulator ${visible(record.emulator || "not recorded")}; agent tokens ${record.agent_tokens ?? "not counted"}`)),
      el("h3", {}, "Verdicts"), verdictsOf(record), el("h3", {}, "What happened"), ...stepsOf(record)];
  }
  async function compareView(name, index) {
    const run = runs.get(name);
    if (!run) return missing("run", name);
    // The source model, and every training of it with the same beta and pairs' judge: this agent's own seed, or another that was tested on the case.
    const same = data.runs.filter((other) => other.model === run.model && (run.recipe === null || other.recipe === null || (other.beta === run.beta && other.pairs_judge === run.pairs_judge)));
    const groups = new Map();
    for (const other of same) {
      const key = `${other.recipe}|${other.beta}|${other.pairs_judge}`;
      groups.set(key, [...(groups.get(key) || []), other].sort((a, b) => Math.abs(a.seed - run.seed) - Math.abs(b.seed - run.seed)));
    }
    const cards = [];
    let title = "";
    for (const members of groups.values()) {
      for (const other of members) {
        const record = (await transcripts(other)).find((found) => String(found.case_idx) === index);
        if (!record || (other !== run && !heldOut(other, record))) continue; // a training case says nothing of what was learnt
        title = record.user_input;
        cards.push(el("div", { class: "card" }, el("h3", {}, link(visible(runTitle(other)), "read", runName(other), record.case_idx, record.sample), heldOut(other, record) ? null : [" ", el("span", { class: "badge" }, notHeldOut(other))]), el("p", { class: "score" }, visible(scoreText(record))), ...stepsOf(record), el("h4", {}, "Verdicts"), verdictsOf(record)));
        break;
      }
    }
    if (!cards.length) return missing("case", index);
    return [crumbs(link(visible(runTitle(run)), "run", name)), el("h2", {}, `Case ${index} across agents`), el("p", {}, el("strong", {}, visible(title))), el("div", { class: "columns" }, cards)];
  }
  // Two runs case by case, biggest changes first; samples and replicates of a case are averaged.
  function meansOf(records) {
    const sums = new Map();
    for (const record of records) for (const verdict of record.verdicts) {
      if (verdict.score === null) continue;
      const key = JSON.stringify([record.case_idx, verdict.judge, verdict.metric]), [sum, n] = sums.get(key) || [0, 0];
      sums.set(key, [sum + verdict.score, n + 1]);
    }
    return new Map([...sums].map(([key, [sum, n]]) => [key, sum / n]));
  }
  async function differencesView(name, baseName) {
    const run = runs.get(name), base = runs.get(baseName);
    if (!run || !base) return missing("run", run ? baseName : name);
    const [after, before] = await Promise.all([run, base].map(async (one) => meansOf((await transcripts(one)).filter((record) => heldOut(one, record)))));
    const instructions = new Map((await transcripts(run)).map((record) => [record.case_idx, record.user_input]));
    const rows = [...after].filter(([key]) => before.has(key)).map(([key, score]) => ({ key: JSON.parse(key), first: before.get(key), second: score }));
    rows.sort((a, b) => Math.abs(b.second - b.first) - Math.abs(a.second - a.first) || a.key[0] - b.key[0]);
    const kinds = [...new Set(rows.map((row) => `${row.key[1]} ${row.key[2]}`))].sort().map((kind) => {
      const mine = rows.filter((row) => `${row.key[1]} ${row.key[2]}` === kind).map((row) => row.second - row.first);
      const improved = mine.filter((change) => change >= 1).length, worse = mine.filter((change) => change <= -1).length;
      return el("li", {}, visible(`${kind}: ${improved} improved, ${worse} worse, ${mine.length - improved - worse} within a point; mean ${number(mine.reduce((sum, change) => sum + change, 0) / mine.length, true)}`));
    });
    const changed = rows.filter((row) => Math.abs(row.second - row.first) >= 1).map((row) => el("tr", {}, el("th", { scope: "row" }, row.key[0]),
      el("td", { class: "number" }, `${number(row.first)} → ${number(row.second)}`), el("td", {}, visible(`${row.key[1]} ${row.key[2]}`)), el("td", {}, link(visible(instructions.get(row.key[0]).slice(0, 160)), "compare", name, row.key[0]))));
    const head = ["case", "change", "judge, metric", "instruction"].map((word) => el("th", { scope: "col" }, word));
    return [crumbs(link(visible(runTitle(run)), "run", name)), el("h2", {}, visible(`${runTitle(run)}, against ${runTitle(base)}`)),
      run.recipe !== null && (base.recipe === null || base.beta === run.beta) ? el("p", {}, "One run against another, on held-out cases. ", link("All seeds and judges together, with intervals", "changed", run.model, run.beta, base.recipe === null ? "source" : base.recipe, run.recipe)) : null,
      rows.length ? el("ul", {}, kinds) : el("p", {}, "No judge scored both on the same case."), !rows.length ? null :
      el("div", { class: "wide" }, el("table", {}, el("caption", {}, "Cases that changed by a point or more, biggest changes first."), el("thead", {}, el("tr", {}, head)), el("tbody", {}, changed)))];
  }
  function missing(what, name) { return [crumbs(), el("h2", {}, "Not in this report"), el("p", {}, visible(`There is no ${what} ${name} here.`))]; }

  const shown = { point: pointView, run: runView, read: readView, compare: compareView, differences: differencesView, changed: changedView };
  let turn = 0;
  async function navigate() {
    const mine = ++turn, asked = location.hash.startsWith("#/") ? location.hash.slice(2).split("/") : null;
    report.hidden = Boolean(asked);
    panel.hidden = !asked;
    if (!asked) { const place = location.hash.length > 1 && document.getElementById(location.hash.slice(1)); if (place) { const folded = place.closest("details"); if (folded) folded.open = true; place.scrollIntoView(); } return; }
    panel.replaceChildren(el("p", { role: "status" }, "Loading …"));
    let content;
    try {
      const [view, ...parts] = asked.map(decodeURIComponent); // throws if somebody altered the address
      content = await (Object.hasOwn(shown, view) ? shown[view](...parts) : missing("page", view));
    }
    catch (problem) { content = [crumbs(), el("h2", {}, "Cannot be shown"), el("p", { role: "alert" }, visible(problem.message))]; }
    if (mine !== turn) return; // somebody went on meanwhile
    panel.replaceChildren(...content.filter(Boolean));
    panel.focus();
    scrollTo(0, 0);
  }
  addEventListener("hashchange", navigate);
  fillTable();
  addCsvButtons();
  navigate();
  const drawAll = async () => { for (const name of Object.keys(data.charts)) await draw(name); document.documentElement.dataset.ready = "yes"; };
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
